"""A destination by what it is known by: a release, a reference stream, a -dump-vmstate file."""

from __future__ import annotations

import csv
import json
import pickle

import pytest
from captures import HERE, capture

from vmstate_tools.compat import Destination, check
from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError, StreamError
from vmstate_tools.release import Release
from vmstate_tools.source import zstd


@pytest.mark.parametrize("release", ["2.99", "2.7.1-rc1", "banana", "0.5"])
def test_a_release_that_never_was_is_no_destination(release):
    with pytest.raises(CatalogError, match=release):
        Destination(release)
    assert Destination("99.0").version == Release("99.0")


# -- known by a -dump-vmstate file -------------------------------------------------------------------------------------


def dumped(release: str, machine: str) -> Destination:
    return Destination.from_dump(HERE.dumps / f"{release}-{machine}.json.zst")


def test_a_dump_names_machine_type_and_release():
    destination = dumped("2.6.0", "pseries-2.6")
    assert (destination.release, destination.machine) == ("2.6.0", "pseries-2.6")
    assert destination.assumptions == ("release: 2.6.0, whose descriptions the dump has",)


@pytest.mark.parametrize(
    ("source", "release", "loads"),
    [("2.6.0", "2.6.0", True), ("2.6.0", "2.7.0", False), ("2.6.0", "2.8.0", True), ("2.8.0", "2.6.0", False)],
)
def test_verdicts_by_a_dump_are_those_of_real_loads(source, release, loads):
    """data/outcomes/load_matrix.csv has these loads of pseries-2.6 with POWER8_v2.0 under TCG."""
    with data_path("outcomes", "load_matrix.csv").open(newline="") as file:
        real = [
            row["vmstate_loaded"] == "True"
            for row in csv.DictReader(file)
            if row["stream"] == f"qemu-{source}/pseries-2.6/POWER8_v2.0.mig.zst"
            and (row["dst_version"], row["cpu_dst"], row["dst_extra"]) == (release, "POWER8_v2.0", "")
        ]
    assert real == [loads]
    verdict = check(
        capture(f"qemu-{source}/pseries-2.6/POWER8_v2.0.mig.zst"),
        Destination.from_dump(HERE.dumps / f"{release}-pseries-2.6.json.zst", release, cpu="POWER8_v2.0", accel="tcg"),
    )
    assert verdict.loads == loads


def test_a_dump_says_which_version_is_read(tmp_path):
    """A destination whose dump has an older version of a device refuses the stream's."""
    document = json.loads(zstd.decompress((HERE.dumps / "2.8.0-pseries-2.6.json.zst").read_bytes()))
    for entry in document.values():
        if entry.get("Description", {}).get("vmsd_name", entry.get("Description", {}).get("name")) == "spapr_pci":
            entry["version_id"] = entry["Description"]["version_id"] = 1
    path = tmp_path / "older.json"
    path.write_text(json.dumps(document))
    stream = capture("qemu-2.8.0/pseries-2.6/POWER8_v2.0.mig.zst")
    whole = check(stream, Destination("2.8.0", accel="tcg"))
    older = check(stream, Destination("2.8.0", accel="tcg").with_dump(path))
    assert whole.loads and not older.loads
    assert (older.first.section, older.first.kind, older.first.destination_value) == ("spapr_pci", "version too new", 1)
    # What one destination has from its dump is nothing that another one has.
    assert check(stream, Destination("2.8.0", accel="tcg")).loads


@pytest.mark.parametrize("text", ["[]", '{"vmschkmachine": {"Name": [1]}}', "QEVM"])
def test_what_is_no_dump(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(StreamError, match=r"x\.json"):
        Destination.from_dump(path)


# -- what follows ------------------------------------------------------------------------------------------------------


def test_asking_a_destination_changes_nothing_of_it():
    destination = Destination("2.7.0", "pseries-2.6", "POWER8_v2.0")
    before = destination.assumptions
    path = capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
    first = check(path, destination)
    known = set(destination.expectation.entries)
    others = [
        capture(f"qemu-{name}.mig.zst") for name in ("7.2/q35/qemu64+cap-compress", "7.2/pseries-2.6/POWER7_v2.3")
    ]
    for other in others:
        check(other, destination)
    assert check(path, destination).to_json() == first.to_json()
    assert destination.assumptions == before and set(destination.expectation.entries) == known
    assert "accelerator: tcg" in first.assumptions


def test_a_destination_goes_to_other_processes():
    destination = Destination("2.7.0", "pseries-2.6,cap-htm=off", "POWER8_v2.0", "tcg")
    path = capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
    verdict = check(path, destination)
    assert check(path, pickle.loads(pickle.dumps(destination))).to_json() == verdict.to_json()


def test_a_destination_that_nothing_is_known_of():
    with pytest.raises(ValueError, match="a reference stream, or a release"):
        check(capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst"), Destination())
