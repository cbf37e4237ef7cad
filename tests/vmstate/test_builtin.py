from __future__ import annotations

import json
import random
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from captures import Captures

import vmstate_tools
from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError
from vmstate_tools.format.sections import handwritten
from vmstate_tools.stream.observed_layouts import Observer, dump
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.section_end import is_header
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate import builtin as layouts
from vmstate_tools.vmstate.description import Vmsd, built_in


def plausible_end(view: memoryview, section: Section, footers: bool):
    """A footer of this section, or where there are none: another section's header, or the end of the file."""

    def fits(end: int) -> bool:
        if end >= len(view):
            return False
        if footers:
            return view[end : end + 5] == b"\x7e" + section.section_id.to_bytes(4, "big")
        if view[end] == 0:
            return end + 1 == len(view) or view[end + 1] == 6
        return view[end] in (1, 4) and is_header(view, end)

    return fits


def resolve(stream: Stream, section: Section, release: str | None) -> dict | None:
    return layouts.resolve(
        section.idstr,
        section.version_id,
        stream.view,
        section.payload_offset,
        plausible_end=plausible_end(stream.view, section, section.footer is not None),
        release=release,
        instance_id=section.instance_id,
    )


def leaves(vmsd: Vmsd) -> Iterator[tuple]:
    """Names, types and sizes in wire order, without the structs around them.

    A device on ISA wraps its VMStateDescription in another of the same name (fdc, pckbd, serial), one on another
    bus does not: the bytes are the same, and so are these.
    """
    for field in vmsd.fields:
        if field.struct is not None and field.struct.fields:
            yield from [("array", field.count)] if field.count else []
            yield from leaves(field.struct)
        else:
            yield field.name, field.index, field.type, field.size, field.count
    for subsection in vmsd.subsections:
        yield "subsection", subsection.name, subsection.version_id
        yield from leaves(subsection)


# Five FIFOs whose capacity is not sent: which is the long one, the bytes do not say.
UNDECIDED = {"xlnx_zynqmp_qspips"}


def test_every_section_that_describes_itself_resolves_to_that(captures) -> None:
    compared = set()
    for row in captures.rows:
        if "mapped-ram" in row["config"]:
            continue
        with open_stream(captures.path(row["file"])) as stream:
            for section in stream.sections:
                if section.how != "vmdesc" or section.description.opaque:
                    continue
                payload = bytes(stream.view[section.payload_offset : section.payload_end])
                key = (row["release"], section.idstr, section.footer is not None, hash(payload))
                if key in compared or section.idstr in UNDECIDED:
                    continue
                compared.add(key)
                entry = resolve(stream, section, row["release"])
                assert entry is not None, (row["file"], section)
                assert entry["instance_id"] == section.instance_id
                found = built_in(entry).vmsd
                assert found.size == section.payload_size, (row["file"], section)
                assert list(leaves(found)) == list(leaves(section.description.vmsd)), (row["file"], section)
    assert len(compared) > {"here": 1000, "collection": 4000}[captures.name]


def test_snapshots_of_releases_no_variant_was_read_from(captures) -> None:
    for release in ("2.11.0", "4.1.0"):
        with open_stream(captures.savevm / f"qemu-{release}-ppc64.qcow2.zst") as stream:
            described = [section for section in stream.sections if section.how == "vmdesc"]
            for section in described:
                found = built_in(resolve(stream, section, release)).vmsd
                assert list(leaves(found)) == list(leaves(section.description.vmsd)), section
            assert len(described) == 15


def undescribed(captures: Captures) -> tuple[dict[str, str], ...]:
    """Captures without vmdesc: QEMU before 2.3, machine types before 2.3 since QEMU 2.6, suppress-vmdesc."""
    old = {"1.6.0", "2.0.0", "2.1.0"}
    return tuple(
        row
        for row in captures.rows
        if row["release"] in old
        or (row["machine"].endswith(("-2.1", "-2.2")) and row["release"] not in ("2.3.0", "2.5.0"))
        or row["config"] == "no-vmdesc"
    )


def test_every_section_of_streams_without_vmdesc_resolves(captures) -> None:
    sections = 0
    for row in undescribed(captures):
        with open_stream(captures.path(row["file"])) as stream:
            assert stream.vmdesc is None, row["file"]
            for section in stream.sections:
                if section.idstr == "ram" or handwritten.known(section.idstr):
                    continue
                entry = resolve(stream, section, row["release"])
                assert entry is not None, (row["file"], section)
                # What looks for the next header may miss it, but nothing ends before the description says.
                assert built_in(entry).vmsd.size <= section.payload_size, (row["file"], section)
                sections += 1
    assert len(undescribed(captures)) > {"here": 30, "collection": 280}[captures.name]
    assert sections > {"here": 300, "collection": 3000}[captures.name]


def cpu(stream: Stream, release: str | None) -> dict[str, bytes]:
    """The bytes of each field of the CPU section, read by its built-in layout."""
    section = stream.section("cpu")
    offset = section.payload_offset
    found = {}
    vmsd = built_in(resolve(stream, section, release)).vmsd
    for part in (vmsd, *vmsd.subsections):
        if part is not vmsd:
            offset += 6 + len(part.name)
        for field in part.fields:
            size = field.size * (field.count or 1)
            found[field.name] = bytes(stream.view[offset : offset + size])
            offset += size
    assert offset == section.payload_end
    return found


def registers(dump: str, name: str) -> list[int]:
    """Values of a register file in the output of `info registers`: lines of four, `GPR04 …`."""
    lines = [line.split()[1:] for line in dump.splitlines() if re.match(rf"{name}\d\d ", line)]
    return [int(word, 16) for line in lines for word in line]


def test_registers_of_guests_that_ran(captures) -> None:
    """`info registers` of the moment of the migration lies beside the capture."""
    ran = [row for row in undescribed(captures) if row["config"].startswith("ran") and "pseries" in row["machine"]]
    for row in ran:
        dump = captures.registers(row["file"]).read_text()
        with open_stream(captures.path(row["file"])) as stream:
            fields = cpu(stream, row["release"])
        assert list(struct.unpack(">32Q", fields["env.gpr"])) == registers(dump, "GPR"), row["file"]
        assert f"NIP {fields['env.nip'].hex()}" in dump
        assert f"MSR {fields['env.msr'].hex()}" in dump
        if "env.fpr" in fields:  # from 4.0 on the floating-point registers are sent as halves of vector registers
            assert list(struct.unpack(">32Q", fields["env.fpr"])) == registers(dump, "FPR"), row["file"]
    assert len(ran) > {"here": 3, "collection": 20}[captures.name]


def test_cpu_words_before_2_1_name_the_pvr(captures) -> None:
    """PVR is sent twice there: alone, as a sanity check, and among the SPRs (287)."""
    pvrs = {}
    for row in undescribed(captures):
        if row["release"] not in ("1.6.0", "2.0.0"):
            continue
        with open_stream(captures.path(row["file"])) as stream:
            fields = cpu(stream, None)
        assert fields["env.spr[SPR_PVR]"] == fields["env.spr"][8 * 287 : 8 * 288]
        pvrs[row["machine"], row["cpu"]] = int.from_bytes(fields["env.spr[SPR_PVR]"], "big")
        assert set(fields) > {"env.msr_mask", "env.insns_flags", "env.insns_flags2", "env.nb_BATs"}
    assert pvrs["pseries", "POWER7_v2.3"] == 0x003F0203
    assert pvrs["g3beige", "7400_v2.9"] == 0x000C0209


@pytest.mark.parametrize(
    ("release", "head", "tail"),
    [
        # target-ppc/machine.c of each tag: what stands before env.gpr and after env.hflags*.
        ("2.0.0", "env.spr[SPR_PVR]", ["env.msr_mask", "env.insns_flags", "env.insns_flags2", "env.nb_BATs"]),
        ("2.7.0", "unused", ["env.msr_mask", "env.insns_flags", "env.insns_flags2", "env.nb_BATs"]),
        ("2.8.0", "unused", ["mig_msr_mask", "mig_insns_flags", "mig_insns_flags2", "mig_nb_BATs"]),
        ("9.1", "unused[0]", ["mig_msr_mask", "mig_insns_flags", "mig_insns_flags2", "mig_nb_BATs"]),
        ("2.9", "unused", []),
        ("10.0", "unused[0]", []),
    ],
)
@pytest.mark.parametrize("word", [8, 4])
def test_cpu_section_of_each_release(release, head, tail, word) -> None:
    """A section of zeros with the fixed part of a 64- or 32-bit CPU and no subsections."""
    if word == 4 and release in ("2.8.0", "9.1"):
        return  # no machine type of a 32-bit CPU sends these fields
    fixed = 8 + 8 * 4 + word * (1 + 32 + 1 + 1024 + 3) + (word * 32 if word == 4 else 0)
    assert word == 4 or fixed == 8528
    payload = bytes(fixed + (word + 8 + 8 + 4 if tail else 0))
    entry = layouts.resolve(
        "cpu", 5, memoryview(payload), 0, plausible_end=lambda end: end == len(payload), release=release
    )
    names = [field["name"] for field in entry["fields"]]
    assert names[0] == head
    assert names[1] == "env.gpr"
    assert names[names.index("env.msr") + 2 :] == tail
    sizes = [field["size"] * field.get("array_len", 1) for field in entry["fields"]]
    assert sum(sizes) == len(payload)


def test_a_count_is_read_from_the_stream() -> None:
    def section(nr_irqs: int) -> dict | None:
        view = memoryview(struct.pack(">I", nr_irqs) + bytes(8 * 3))
        return layouts.resolve("ics", 1, view, 0, plausible_end=lambda end: end == len(view), release="7.2")

    irqs = section(3)["fields"][1]
    assert (irqs["array_len"], irqs["size"], irqs["struct"]["vmsd_name"]) == (3, 8, "ics/irq")
    assert section(2) is None
    assert section(0xFFFFFFFF) is None


def test_unknown_sections_and_versions() -> None:
    view = memoryview(bytes(64))
    assert layouts.resolve("no such device", 1, view, 0, plausible_end=lambda end: True) is None
    assert layouts.resolve("cpu", 4, view, 0, plausible_end=lambda end: True) is None


def test_least_release() -> None:
    machines = ["pseries-2.6", "pseries-2.12-sxxm", "pc-q35-10.2", "s390-ccw-virtio-5.2", "mac99", None]
    assert [layouts.least_release(m) for m in machines] == ["2.6", "2.12", "10.2", "5.2", None, None]


def test_the_least_release_chooses_among_names() -> None:
    """Up to 2.12 the second field of `timer` was a dummy, since 3.0 it is unused: the bytes are the same."""

    def second(release: str | None) -> str:
        view = memoryview(bytes(24))
        return layouts.resolve("timer", 2, view, 0, plausible_end=lambda e: e == 24, release=release)["fields"][1][
            "name"
        ]

    assert [second(r) for r in (None, "2.6", "2.12.0", "4.0", "7.2")] == ["dummy", "dummy", "dummy", "unused", "unused"]


def test_bus_paths_are_left_out_of_the_name() -> None:
    view = memoryview(bytes(8))
    for idstr in ("spapr/rtc", "a/b/spapr/rtc"):
        entry = layouts.resolve(idstr, 1, view, 0, plausible_end=lambda end: end == 8)
        assert (entry["name"], entry["vmsd_name"]) == (idstr, "spapr/rtc")


def test_a_claim_of_many_elements_costs_little() -> None:
    """spapr_dr_connector's kin: counts a stream claims are bounded by its bytes, and all the work by a budget."""
    name, variant = next(
        (name, variant)
        for name, variants in layouts._library().items()
        for variant in variants
        for field in variant["fields"]
        if isinstance(field.get("elements", field.get("array_len")), str)
    )
    view = memoryview(b"\x00\x00\x3f\xff" * (1 << 16))
    start = time.process_time()
    layouts.resolve(name, variant["version"], view, 0, plausible_end=lambda end: False)
    assert time.process_time() - start < 1


def test_noise_ends_soon_and_without_error() -> None:
    noise = random.Random(2)
    names = [name for name in layouts._library() for _ in layouts._library()[name]]
    for _ in range(400):
        name = noise.choice(names)
        version = noise.choice(layouts._library()[name])["version"]
        payload = noise.randbytes(noise.choice([0, 10, 1000, 20000]))
        start = time.process_time()
        entry = layouts.resolve(name, version, memoryview(payload), 0, plausible_end=lambda end: noise.random() < 0.01)
        assert time.process_time() - start < 1
        assert entry is None or built_in(entry).vmsd.size <= len(payload)


def data(name: str) -> dict:
    return json.loads(data_path("layouts", name).read_text())


def test_observed_variants_are_what_streams_show(captures) -> None:
    observed = data("observed.json")
    observer = Observer(data("facts.json"))
    every = {"here": 7, "collection": 60}[captures.name]
    picked = [row for row in captures.rows if "mapped-ram" not in row["config"]][::every]
    for row in picked:
        observer.read(captures.path(row["file"]), row["release"])
    found = observer.layouts()
    assert len(found) > 100
    for name, variants in found.items():
        for variant in variants:
            same = [v for v in observed[name] if (v["version"], v["fields"]) == (variant["version"], variant["fields"])]
            # Without the streams in which an array has elements, a variant cannot show that array.
            if not same and name in data("facts.json")["counts"]:
                continue
            assert len(same) == 1, name
            assert set(same[0]["releases"]) >= set(variant["releases"])


def test_a_fact_that_a_stream_contradicts_is_an_error(captures) -> None:
    row = next(row for row in captures.rows if row["machine"] == "pseries-2.6" and row["release"] == "2.6.0")
    observer = Observer({"counts": {"spapr_nvram": {"buf": "size/2"}}, "optional": {}})
    with pytest.raises(CatalogError, match=r"spapr_nvram\.buf: size/2 does not hold its size"):
        observer.read(captures.path(row["file"]), row["release"])


def test_source_has_only_what_was_not_observed() -> None:
    observed = data("observed.json")
    for name, variants in data("source.json").items():
        for variant in variants:
            file, _, symbol = variant["source"].partition(": ")
            assert file.endswith(".c") and symbol, name
            assert variant["fields"] not in [v["fields"] for v in observed.get(name, [])], name


def test_dump_is_json_with_a_line_per_field() -> None:
    observed = data("observed.json")
    assert dump(observed) == data_path("layouts", "observed.json").read_text()
    assert json.loads(dump(observed)) == observed


def test_package_is_this_checkout() -> None:
    assert Path(vmstate_tools.__file__).is_relative_to(Path(__file__).resolve().parents[2])
