from __future__ import annotations

from pathlib import Path

import pytest
from writer import be, pstring

from vmstate_tools.errors import StreamError
from vmstate_tools.format.sections import handwritten
from vmstate_tools.format.sections.leaves import Payload
from vmstate_tools.stream.stream import open_stream

DATA = Path(__file__).parents[1] / "data"


def test_every_virtio_section_of_the_captures(captures) -> None:
    """Legacy and modern devices of QEMU 2.0 to 11.1, with and without vmdesc; each ends where its section does."""
    rows = [row for row in captures.rows if "virtio" in row["arguments"] or "rich" in row["config"]]
    seen: dict[str, int] = {}
    for row in rows:
        with open_stream(captures.path(row["file"])) as stream:
            for section in stream.sections:
                device = section.idstr.rpartition("/")[2]
                if not device.startswith("virtio-") or not handwritten.known(section.idstr):
                    continue
                end, leaves = handwritten.parse(
                    section.idstr,
                    stream.view,
                    section.payload_offset,
                    part="full",
                    version_id=section.version_id,
                    state={},
                )
                payload = stream.view[section.payload_offset : section.payload_end]
                assert end == section.payload_end, (row["file"], section)
                assert handwritten.build(leaves) == payload
                values = {leaf.path: leaf.value for leaf in leaves}
                # A PCI device of Red Hat's virtio range, and a queue per purpose.
                if "pci.config" in values:
                    assert values["pci.config"][:2] == b"\xf4\x1a"
                assert values["vq.num"] == sum(path.endswith(".vring.num") for path in values)
                if device == "virtio-net":
                    assert values["mac"][:5] == bytes.fromhex("5254001234")
                seen[device] = seen.get(device, 0) + 1
    assert set(seen) >= {"virtio-net", "virtio-blk", "virtio-balloon", "virtio-console", "virtio-scsi", "virtio-rng"}
    assert min(seen.values()) > {"here": 3, "collection": 30}[captures.name]


# Device ids of the virtio specification, which a ccw device has for its control unit's model.
IDS = {"net": 1, "blk": 2, "console": 3, "rng": 4, "balloon": 5, "scsi": 8, "9p": 9, "gpu": 16, "input": 18}


@pytest.mark.parametrize("name", ["ccw", "mmio", "mmio-legacy"])
def test_transports(name: str) -> None:
    with open_stream(DATA / "virtio" / f"{name}.mig.zst") as stream:
        assert stream.build() == stream.source.view
        sections = [s for s in stream.sections if "/virtio-" in s.idstr]
        assert sorted(s.idstr.rpartition("-")[2] for s in sections) == sorted([*IDS, "input", "input"])
        for number, section in enumerate(sections):
            assert section.how == "handwritten", section
            values = {leaf.path: leaf.value for leaf in section.leaves}
            device = section.idstr.rpartition("-")[2]
            assert values["vq.num"] == {"net": 3, "blk": 1, "console": 64, "balloon": 3, "rng": 1, "scsi": 3}.get(
                device, 1 if device == "9p" else 2
            )
            if name == "ccw":
                assert (values["sch.devno"], values["sch.id.cu_type"]) == (number, 0x3832)
                assert values["sch.id.cu_model"] == IDS[device]
            else:
                assert values["vq[0].vring.align"] == 4096
                assert ("virtio_mmio/state.vqs" in values) == (name == "mmio")
            if device == "net":
                assert values["mac"] == bytes.fromhex("525400123456")  # QEMU's first
            if device == "console":
                assert (values["nr_active_ports"], values["ports[0].id"], values["ports[1].id"]) == (2, 0, 1)
            if device == "gpu":
                assert (values["reslist[0].resource_id"], values["max_outputs"]) == (0, 1)


def test_devices_that_are_newer() -> None:
    with open_stream(DATA / "virtio" / "pci.mig.zst") as stream:
        found = {s.idstr.partition("/")[2]: s for s in stream.sections if "/virtio-" in s.idstr}
        assert set(found) == {f"virtio-{d}" for d in ("mem", "iommu", "gpu", "input", "9p")}
        assert {s.how for s in found.values()} == {"handwritten"}
        values = {d: {leaf.path: leaf.value for leaf in s.leaves} for d, s in found.items()}
        mem = values["virtio-mem"]
        assert (mem["addr"], mem["region_size"], mem["requested_size"]) == (1 << 32, 128 << 20, 64 << 20)
        assert len(mem["bitmap"]) == 8 and mem["block_size"] == 2 << 20
        assert values["virtio-iommu"]["domains.nnodes"] == 0 and values["virtio-iommu"]["config.bypass"] == 1
        assert values["virtio-gpu"]["max_outputs"] == 2 and "scanout[1].cursor.pos.y" in values["virtio-gpu"]


MMIO = be(0, 12) + be(0, 4) + be(0, 4) + be(0, 4) + be(0, 4)  # nothing set, no configuration, no queues


def leaves(device: str, own: bytes, version_id: int = 1) -> dict:
    data = MMIO + own
    idstr = f"virtio-mmio@000000000a003e00/virtio-{device}"
    end, found = handwritten.parse(idstr, memoryview(data + b"\x7e"), 0, part="full", version_id=version_id, state={})
    assert end == len(data) and handwritten.build(found) == data
    format_ = handwritten.format_of(idstr)
    assert format_ is not None
    value = format_.parse_stream(Payload(memoryview(data + b"\x7e"), 0, "full", {}), version_id=version_id)
    assert format_.build(value, version_id=version_id) == data
    return {leaf.path: leaf.value for leaf in found}


def test_an_iommu_in_use() -> None:
    """As `vmstate_domain` has it: no guest of ours drives one."""
    mapping = b"\1" + be(0x1000, 8) + be(0x1FFF, 8) + be(0xABC000, 8) + be(3, 4)
    domain = b"\1" + be(7, 8) + be(7, 4) + be(2, 4) + 2 * mapping + b"\0" + b"\1" + be(0x18, 4) + b"\0"
    one = leaves("iommu", be(1, 4) + domain + b"\0")
    assert one["domains[0].mappings[1].phys_addr"] == 0xABC000
    assert one["domains[0].endpoint_list[0].id"] == 0x18
    two = leaves("iommu", be(1, 4) + domain + b"\1" + b"\0" + b"\1", version_id=2)
    assert (two["domains[0].bypass"], two["config.bypass"]) == (1, 1)


def test_a_gpu_with_a_picture() -> None:
    resource = be(5, 4) + be(3, 4) + be(2, 4) + be(1, 4) + be(1, 4) + be(0x9000, 8) + be(24, 4) + bytes(range(24))
    values = leaves("gpu", resource + be(0, 4) + be(1, 4) + be(1, 4) + be(5, 4) + be(3, 4) + be(2, 4) + bytes(28))
    assert values["reslist[0].image"] == bytes(range(24))
    assert (values["reslist[0].iov[0].addr"], values["scanout[0].width"]) == (0x9000, 3)


def test_memory_that_went_ahead() -> None:
    """`x-early-migration` since 8.0: two fields are left of those of a virtio-mem."""
    features = b"\5" + pstring("virtio/64bit_features") + be(1, 4) + be(1 << 32, 8)
    values = leaves("mem", be(1 << 30, 8) + be(1 << 20, 8) + features)
    assert (values["usable_region_size"], values["requested_size"]) == (1 << 30, 1 << 20)
    with pytest.raises(StreamError, match="blocks of 0 bytes"):
        leaves("mem", bytes(64))


def test_what_is_not_known() -> None:
    assert handwritten.known("pci@800000020000000:00.0/virtio-blk")
    assert handwritten.known("0000:00:01.0/virtio-net")
    assert handwritten.known("/fe.0.0001/virtio-net")
    assert not handwritten.known("virtio-blk")
    assert not handwritten.known("0000:00:01.0/virtio-nsm")
    assert not handwritten.known("0000:00:01.0/vhost-user-blk")
