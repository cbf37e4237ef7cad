from __future__ import annotations

import json
from pathlib import Path

from handmade import device, field, section, stream
from shell import NO_VMDESC, P26, P27, Q35, raw, run


def test_info_json() -> None:
    found = json.loads(run("info", "--json", P26).stdout)
    data = raw(P26)
    assert found["machine"] == "pseries-2.6"
    assert found["page_size"] == 4096
    assert found["coverage"]["described"] + found["coverage"]["opaque"] == len(data) == found["size"]
    assert found["coverage"]["opaque"] == 0
    # 8 bytes of header and 16 of configuration, then SECTION_START of ram.
    first = found["sections"][0]
    assert (first["idstr"], first["instance_id"], first["version_id"], first["offset"]) == ("ram", 0, 4, 24)
    assert data[24:25] == b"\1" and data[30:33] == b"ram"
    for one, two in zip(found["sections"], found["sections"][1:], strict=False):
        assert one["offset"] + one["size"] == two["offset"]
    (block,) = found["ram"]
    assert (block["block"], block["used_length"]) == ("ppc_spapr.ram", 256 << 20)
    assert block["zero"] + block["normal"] == (256 << 20) // 4096


def test_info_json_of_several_is_a_list() -> None:
    assert [d["file"] for d in json.loads(run("info", "--json", P26, P27).stdout)] == [P26, P27]


def test_info_with_the_description_of_another_stream() -> None:
    bare = json.loads(run("info", "--json", NO_VMDESC).stdout)
    helped = json.loads(run("info", "--json", NO_VMDESC, "--description", Q35).stdout)
    assert bare["vmdesc_size"] is None
    assert not any(s["how"] == "borrowed" for s in bare["sections"])
    borrowed = {s["idstr"] for s in helped["sections"] if s["how"] == "borrowed"}
    assert {"cpu", "apic", "hpet"} <= borrowed


def test_info_counts_what_nothing_describes(tmp_path: Path) -> None:
    path = tmp_path / "opaque.mig"
    sections = [section("known", bytes(3), number=1), section("unknown", bytes(7), number=2)]
    path.write_bytes(stream(sections, [device("known", [field("x", "buffer", 3)])]) + b"trailing")
    found = json.loads(run("info", "--json", str(path)).stdout)
    assert found["coverage"] == {"described": path.stat().st_size - 15, "opaque": 15, "outside": 8}
    assert [s["how"] for s in found["sections"]] == ["vmdesc", "opaque"]


def test_info_names_the_releases_that_can_have_written_it() -> None:
    for path, release in ((P26, "2.6"), (P27, "2.7"), (Q35, "7.2")):
        written = json.loads(run("info", "--json", path).stdout)["written_by"]
        assert release in written["releases"]
    lines = run("info", P26).stdout.splitlines()
    assert "  written by   QEMU 2.6" in lines
