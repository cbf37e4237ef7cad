from __future__ import annotations

import csv

from vmstate_tools import handwritten
from vmstate_tools.stream import open_stream


def test_every_virtio_section_of_the_captures(shared) -> None:
    """Legacy and modern devices of QEMU 2.0 to 11.1, with and without vmdesc; each ends where its section does."""
    with (shared / "captures" / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if "virtio" in row["arguments"] or "rich" in row["config"]]
    seen: dict[str, int] = {}
    for row in rows:
        with open_stream(shared / "captures" / row["file"]) as stream:
            for section in stream.sections:
                device = section.idstr.rpartition("/")[2]
                if not device.startswith("virtio-") or not handwritten.known(section.idstr):
                    continue
                end, leaves = handwritten.parse(
                    section.idstr,
                    stream._view,
                    section.payload_offset,
                    part="full",
                    version_id=section.version_id,
                    state={},
                )
                payload = stream._view[section.payload_offset : section.payload_end]
                assert end == section.payload_end, (row["file"], section)
                assert handwritten.build(leaves) == payload
                values = {leaf.path: leaf.value for leaf in leaves}
                # A PCI device of Red Hat's virtio range, and a queue per purpose.
                assert values["pci.config"][:2] == b"\xf4\x1a"
                assert values["vq.num"] == sum(path.endswith(".vring.num") for path in values)
                if device == "virtio-net":
                    assert values["mac"][:5] == bytes.fromhex("5254001234")
                seen[device] = seen.get(device, 0) + 1
    assert set(seen) >= {"virtio-net", "virtio-blk", "virtio-balloon", "virtio-console", "virtio-scsi", "virtio-rng"}
    assert min(seen.values()) > 30


def test_other_transports_and_devices_are_not_known() -> None:
    assert handwritten.known("pci@800000020000000:00.0/virtio-blk")
    assert handwritten.known("0000:00:01.0/virtio-net")
    assert not handwritten.known("/fe.0.0001/virtio-net")
    assert not handwritten.known("virtio-mmio@000000000a003e00/virtio-rng")
    assert not handwritten.known("0000:00:01.0/virtio-gpu")
