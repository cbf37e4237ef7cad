from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pandas as pd
import pytest

from vmstate_tools.data import data_path
from vmstate_tools.source import zstd

STREAMS = data_path("streams")
MANIFEST = pd.read_csv(STREAMS / "manifest.csv", dtype=str, keep_default_na=False)
OUTCOMES = pd.read_csv(data_path("outcomes", "load_matrix.csv"), dtype=str, keep_default_na=False)


def test_manifest_and_files_agree() -> None:
    files = {p.relative_to(STREAMS).as_posix() for p in STREAMS.rglob("*.mig.zst")}
    assert set(MANIFEST.file) == files
    assert MANIFEST.file.is_unique
    assert not MANIFEST.file.str.lower().duplicated().any(), "names must differ on every file system"


def test_names_say_what_the_manifest_says() -> None:
    for row in MANIFEST.itertuples():
        name = re.fullmatch(r"qemu-([\d.]+)/([^/]+)/([^/+]+)(?:\+([^/]+))?\.mig\.zst", row.file)
        assert name, row.file
        release, machine, cpu, config = name.groups("")
        assert (release, machine, config) == (row.release, row.machine, row.config)
        assert cpu.lower() == (row.cpu.lower() or "default")


def test_enough_of_everything() -> None:
    assert len(MANIFEST) >= 100
    assert MANIFEST.release.nunique() == 14
    assert {"1.6.0", "2.3.0", "2.6.0", "2.7.0", "11.1"} <= set(MANIFEST.release)
    assert set(MANIFEST.arch) == {"ppc64", "x86_64", "aarch64", "s390x"}
    assert MANIFEST.config.str.split("-").str[0].eq("ran").sum() >= 50
    for family in ("970", "power7", "power8", "power8e", "power9"):
        assert MANIFEST.cpu.str.lower().str.startswith(family).any()
    assert sum(p.stat().st_size for p in STREAMS.rglob("*") if p.is_file()) < 6_000_000


@pytest.mark.parametrize("file", MANIFEST.file)
def test_streams_are_the_ones_captured(file: str) -> None:
    row = MANIFEST.set_index("file").loc[file]
    digest, size = hashlib.sha256(), 0
    with (STREAMS / file).open("rb") as raw, zstd.reader(raw) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    assert (digest.hexdigest(), size) == (row.sha256, int(row["size"]))


def test_registers_lie_beside_a_stream_of_a_guest_that_ran() -> None:
    registers = [p.relative_to(STREAMS) for p in STREAMS.rglob("*.registers.txt")]
    streams = {Path(f.removesuffix(".mig.zst") + ".registers.txt") for f in MANIFEST.file}
    assert set(registers) <= streams
    ran = MANIFEST.file[MANIFEST.config.eq("ran")].str.replace(".mig.zst", ".registers.txt")
    assert {Path(f) for f in ran} <= set(registers)
    for path in registers:
        assert "GPR" in (STREAMS / path).read_text() or "EAX" in (STREAMS / path).read_text()


def test_outcomes_hold_both_answers_for_the_bundled_streams() -> None:
    here = OUTCOMES[OUTCOMES.stream.isin(MANIFEST.file)]
    assert set(here.vmstate_loaded) == {"True", "False"}
    # What a row says of its source is what the manifest says of the stream.
    both = here.merge(MANIFEST, left_on="stream", right_on="file", suffixes=("", "_m"))
    assert (both.src_version == both.release).all()
    assert (both.machine == both.machine_m).all()
    assert (both.arch == both.arch_m).all()
    # The case this toolkit began with: POWER7 and POWER8 on pseries-2.6, from 2.6 to 2.7.
    case = here[here.machine.eq("pseries-2.6") & here.src_version.eq("2.6.0") & here.dst_version.eq("2.7.0")]
    case = case[case.config.eq("") & case.dst_extra.eq("") & case.cpu_src.eq(case.cpu_dst)]
    answers = dict(zip(case.cpu_src, case.vmstate_loaded, strict=True))
    assert answers == {
        "970fx_v3.1": "True",
        "POWER7_v2.3": "False",
        "POWER8_v2.0": "False",
        "POWER8e_v2.1": "False",
    }


def test_document_gives_the_figures_of_the_data() -> None:
    text = data_path("DATA.md").read_text()
    registers = len(list(STREAMS.rglob("*.registers.txt")))
    here = int(OUTCOMES.stream.isin(MANIFEST.file).sum())
    million = round(MANIFEST["size"].astype(int).sum() / 1e6)
    for figure in (
        f"{len(MANIFEST)} migration streams of {MANIFEST.release.nunique()} QEMU releases",
        f"{million} MB decompressed",
        f"each of the {registers} streams",
        f"{len(OUTCOMES):,} loads",
        f"{here} of the rows",
    ):
        assert figure in text
    for column in [*MANIFEST.columns, *OUTCOMES.columns]:
        assert re.search(rf"\| [^|]*\b{column}\b", text), column
