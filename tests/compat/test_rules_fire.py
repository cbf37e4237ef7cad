"""Each rule fires on a stream: on one that a real destination refused for it, where such a load is recorded."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from captures import capture

import vmstate_tools as vt
from vmstate_tools.compat import Destination, check, post_load, rules
from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.compat.loader import CapabilityLevel, Loader
from vmstate_tools.compat.reader import Reader
from vmstate_tools.compat.spapr_caps import Capability
from vmstate_tools.compat.verdict import Caution, Obstacle
from vmstate_tools.data import data_path
from vmstate_tools.release import Release
from vmstate_tools.vmstate.description import Vmsd

# Stage, kind and section of the first obstacle; stream, release and CPU of a load that was refused (data/outcomes).
REFUSED = [
    ("start", "no such CPU model", None, "qemu-2.6.0/pseries-2.6/POWER7_v2.3", "7.2", "970fx_v3.1"),
    ("A", "configuration missing", None, "qemu-2.1.0/pseries-2.1/POWER7_v2.3", "2.5.0", "POWER7_v2.3"),
    ("A", "configuration unexpected", None, "qemu-2.5.0/pseries-2.1/POWER7_v2.3", "2.1.0", "POWER7_v2.3"),
    ("C", "RAM block size", "ram", "qemu-2.5.0/g3beige/g4", "10.0.13", "g4"),
    ("C", "unknown RAM block", "ram", "qemu-7.2/ref405ep/default", "2.7.0", ""),
    ("D", "field missing in stream", "ics", "qemu-1.6.0/pseries/POWER7_v2.3", "2.1.0", "POWER7_v2.3"),
    ("D", "unknown command", None, "qemu-11.1/raspi3b/default", "7.2.22", ""),
    ("D", "unknown section", "globalstate", "qemu-2.6.0/pseries-2.1/POWER7_v2.3", "2.3.0", "POWER7_v2.3"),
    ("D", "version too new", "spapr_iommu", "qemu-7.2/pseries-2.1/POWER7_v2.3", "2.8.0", "POWER7_v2.3"),
    ("E", "version too new", "cpu", "qemu-11.1/pseries-5.2/POWER8_v2.0", "5.2", "POWER8_v2.0"),
    ("E", "version too old", "armv7m_systick", "qemu-5.2/mps2-an385/default", "10.0.13", ""),
    ("F", "abort", "cpu", "qemu-11.1/raspi3b/default", "10.0.13", ""),
    ("F", "not equal", "cpu", "qemu-1.6.0/pseries/POWER7_v2.3", "2.0.0", "POWER7_v2.3"),
    ("F", "too large", "cpu", "qemu-7.2/virt-5.2/cortex-a57", "5.2", "cortex-a57"),
    ("G", "unknown subsection", "spapr", "qemu-5.2/pseries-2.6/POWER8_v2.0+htmoff", "2.6.0", "POWER8_v2.0"),
    ("H", "PVR", "cpu", "qemu-2.6.0/pseries-2.6/POWER8_v2.0", "7.2", "POWER7_v2.3"),
    ("H", "capability", "spapr", "qemu-2.6.0/pseries-2.6/POWER8_v2.0", "2.12.0", "POWER8_v2.0"),
    ("H", "system register", "cpu", "qemu-7.2/virt-5.2/cortex-a57", "11.1.3", "cortex-a57"),
    ("I", "field unknown", "cpu", "qemu-2.6.0/mac99/default", "10.0.13", ""),
    ("I", "length", "cpu", "qemu-2.12.0/sam460ex/default", "10.0.13", ""),
]


def recorded() -> list[dict[str, str]]:
    rows = []
    for name in ("load_matrix", "more_loads"):
        with data_path("outcomes", f"{name}.csv").open(newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


ROWS = recorded()


@pytest.mark.parametrize(
    ("stage", "kind", "section", "stream", "release", "cpu"), REFUSED, ids=lambda value: str(value)
)
def test_a_load_that_was_refused(stage, kind, section, stream, release, cpu):
    name = f"{stream}.mig.zst"
    row = next(r for r in ROWS if (r["stream"], r["dst_version"], r["cpu_dst"]) == (name, release, cpu))
    assert row["vmstate_loaded"] == "False"
    options = dict([row["dst_extra"].split("=")]) if row["dst_extra"] else {}
    verdict = check(capture(name), Destination(release, row["machine"], cpu or None, "tcg", options))
    first = verdict.first
    assert first is not None
    assert (first.stage, first.kind, first.section) == (stage, kind, section)
    if section is not None and "device '" in row["stderr"]:
        assert f"device '{section}'" in row["stderr"]


# -- rules that no recorded load was refused for -----------------------------------------------------------------------


def loader(release: str, expectation: Expectation | None = None, **more: Any) -> Loader:
    known = {"machine": None, "cpu": None, "accel": "tcg", "options": {}, "pvr": None, "caps": (), **more}
    return Loader(Release(release), expectation=expectation or Expectation(), **known)


def read(**values: Any) -> Reader:
    """What was read of a section; `cpu__compat__compat_pvr` stands for description and path."""
    places = {(name.rpartition("__")[0].replace("__", "/"), name.rpartition("__")[2]): v for name, v in values.items()}
    return Reader(memoryview(b""), 0, 0, lambda *_: None, places)


class Named:
    """A section by its name alone."""

    def __init__(self, idstr: str) -> None:
        self.idstr = idstr


def hooks(section: str, what: Reader, entry: Entry, own: Loader) -> list[Obstacle | Caution]:
    return list(post_load.post_load(what, Named(section), entry, own))


@pytest.mark.parametrize(
    ("compat", "refused"),
    [
        (0x0F000004, False),  # 2.07: POWER8's own level (target/ppc/compat.c: compat_table)
        (0x0F000005, True),  # 3.00 came with POWER9
        (0x0F00FFFF, True),
    ],
)
def test_a_compat_pvr_must_be_a_level_that_the_cpu_has(compat, refused):
    entry = Entry("cpu", 0, 5, Vmsd("cpu", 5), {("cpu", "pvr"): 0x004D0200})
    what = read(cpu__compat__compat_pvr=compat)
    what.values["cpu", "env.spr"] = bytes(8 * 1024)
    found = hooks("cpu", what, entry, loader("2.10.0"))
    assert [o.kind for o in found] == ["compat PVR"] * refused
    assert hooks("cpu", what, entry, loader("2.9.0")) == []  # d5fc133eed


@pytest.mark.parametrize(("sent", "kinds"), [(2, [Obstacle]), (1, []), (0, [Caution])])
def test_a_capability_may_not_be_above_the_destinations(sent, kinds):
    level = CapabilityLevel(Capability("cfpc", "spapr/cap/cfpc", "", 1), 1, 1)
    what = read()
    what.values["spapr/cap/cfpc", "cap"] = sent
    found = hooks("spapr", what, Entry("spapr", 0, 3), loader("4.0.0", caps=(level,)))
    assert [type(one) for one in found] == kinds
    assert hooks("spapr", what, Entry("spapr", 0, 3), loader("2.11.0", caps=(level,))) == []  # be85537d65


def test_what_software_cannot_write_in_pci_configuration_space_must_be_equal():
    """hw/pci/pci.c: vendor and device; a capability at 0x40, which the capability pointer at 0x34 leads to."""
    own = bytearray(256)
    own[0:4], own[6], own[0x34], own[0x40] = b"\xf4\x1a\x00\x10", 0x10, 0x40, 0x11
    entry = Entry("0000:00:03.0/virtio-net", 0, 11, values={("PCIDevice", "config"): bytes(own)})

    def differing(place: int) -> list[Obstacle | Caution]:
        sent = bytearray(own)
        sent[place] ^= 1
        what = read()
        what.values["PCIDevice", "config"] = bytes(sent)
        return hooks(entry.idstr, what, entry, loader("7.2"))

    assert [o.message for o in differing(2)] == ["PCI configuration space differs at 0x2, which the guest cannot write"]
    assert [o.kind for o in differing(0x40)] == ["not equal"]
    assert differing(4) == []  # the command register, which the guest writes


def test_bits_that_read_as_set_must_be_set_in_the_stream():
    """SCR_EL3 has bits 4 and 5 set since 4.0 where the CPU has AArch64 (ea22747c63)."""
    scr, dfr0 = 0x603000000013F088, 0x603000000013C028
    what = read(
        cpu__cpreg_vmstate_indexes=b"".join(n.to_bytes(8, "big") for n in (scr, dfr0)),
        cpu__cpreg_vmstate_values=bytes(16),
    )
    entry = Entry("cpu", 0, 22, Vmsd("cpu", 22))
    assert [o.destination_value for o in hooks("cpu", what, entry, loader("5.0.0"))] == [0x30]
    assert hooks("cpu", what, entry, loader("3.1.0")) == []


class Leaf:
    def __init__(self, value: int) -> None:
        self.path, self.value = "htab_shift", value


@pytest.mark.parametrize(
    ("release", "sent", "refused"),
    [("2.5.0", 25, True), ("2.5.0", 24, False), ("2.6.0", 25, False), ("2.11.0", -1, True), ("2.12.0", -1, False)],
)
def test_the_size_of_the_hash_table(release, sent, refused):
    section = Named("spapr/htab")
    section.leaves = [Leaf(sent)]
    entry = Entry("spapr/htab", 0, 1, iterable=True, values={("", "htab_shift"): 24})
    assert bool(rules.iterable(section, entry, None, loader(release))) == refused


class Configured:
    machine = "pseries-4.0"

    def __init__(self, **configuration: Any) -> None:
        self.configuration = configuration


@pytest.mark.parametrize(
    ("sent", "release", "stages"),
    [
        ({"page_bits": 12}, "2.7.0", ["G"]),  # 59811a320d
        ({"page_bits": 12}, "2.8.0", ["B"]),
        ({"page_bits": 10}, "2.8.0", []),
        ({"capabilities": ("x-colo",)}, "3.1.0", ["G"]),  # 6cafc8e4dd
        ({"capabilities": ("x-colo",)}, "4.0.0", ["B"]),
        ({}, "4.0.0", []),
    ],
)
def test_subsections_of_the_configuration(sent, release, stages):
    found = rules.configuration(Configured(**sent), loader(release, Expectation(page_bits=10)))
    assert [o.stage for o in found] == stages


def test_a_footer_that_is_missing():
    """QEMU with send-section-footer=off wrote it; by default 2.12 looks for footers."""
    path = capture("qemu-2.6.0/pseries-2.1/POWER7_v2.3.mig.zst")
    with vt.open(path) as stream:
        assert not any(section.footer for section in stream.sections)
        destination = Destination.from_stream(stream, "2.6.0", cpu="POWER7_v2.3", accel="tcg")
        assert check(stream, destination).loads
        destination.expectation.footers = True
        assert {o.kind for o in check(stream, destination).reasons} == {"footer missing"}
