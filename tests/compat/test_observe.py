"""Expectations extracted from captures: what is made today is what is bundled."""

from __future__ import annotations

import csv

from captures import capture

from vmstate_tools.compat import observe, observed
from vmstate_tools.compat.from_stream import expectation_of
from vmstate_tools.data import data_path
from vmstate_tools.stream.stream import open_stream

FILE = "qemu-2.7.0/pseries-2.6/POWER8_v2.0.mig.zst"


def bundled() -> observed.Configuration:
    wanted = ("2.7.0", "pseries-2.6", "POWER8_v2.0", "")
    return next(c for c in observed.configurations() if (c.release, c.machine, c.cpu, c.config) == wanted)


def test_a_capture_gives_what_is_bundled():
    manifest = data_path("streams", "manifest.csv")
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file"] == FILE]
    tables = observe.build(manifest, rows)
    (made,), stored = tables["captures"], bundled().stored
    for name in ("release", "machine", "configuration", "page_bits", "footers", "ram", "page_size"):
        assert made[name] == stored[name]
    sections = [tables["sections"][number] for number in made["sections"]]
    there = bundled().expectation.entries
    assert [(s[0], s[1], s[2]) for s in sections] == [(e.idstr, e.instance_id, e.version_id) for e in there.values()]
    for idstr, instance, _, tree, values, _ in sections:
        entry = there[idstr, instance]
        assert (tree is None) == (entry.vmsd is None)
        named = {
            (vmsd, path): bytes.fromhex(v) if isinstance(v, str) else v for vmsd, path, v in tables["values"][values]
        }
        assert named == entry.values
        if entry.vmsd is not None:
            assert tables["trees"][tree] == observe.tree_json(entry.vmsd)


def test_a_restored_expectation_has_the_values_that_are_compared():
    with open_stream(capture(FILE)) as stream:
        whole = expectation_of(stream, "2.7.0").find("cpu", 0).values
        word = stream.value("cpu", "env.insns_flags")
    stored = bundled().expectation.find("cpu", 0).values
    assert stored["cpu", "env.insns_flags"] == word == whole["cpu", "env.insns_flags"]
    assert stored.items() <= whole.items()
    assert stored["cpu", "pvr"] == 0x004D0200  # POWER8 v2.0, target/ppc/cpu-models.h


def test_an_expectation_that_is_copied_may_be_changed():
    one = bundled().copied()
    one.entries.clear()
    assert bundled().expectation.entries
