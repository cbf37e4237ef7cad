"""What is read of virtio: from a small tree in shapes that QEMU's source has had, and in data/source beside QEMU."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache

import pytest
from qemus import qemu
from small_qemu import commit

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.qemu_source import virtio
from vmstate_tools.qemu_source.git import Repo
from vmstate_tools.qemu_source.layout import Layout
from vmstate_tools.qemu_source.program import Files, Program
from vmstate_tools.qemu_source.revision import Revision
from vmstate_tools.qemu_source.source_tables import read_release
from vmstate_tools.qemu_source.targets import TARGETS

NAMES_H = """
#define VIRTIO_LAMP_F_DIM 3
#define VIRTIO_LAMP_F_COLOUR (VIRTIO_LAMP_F_DIM + 1)
#define VIRTIO_LAMP_HDR_F_MORE 1
#define VIRTIO_RING_F_EVENT_IDX 29
#define VIRTIO_TRANSPORT_F_START 28
#define VIRTIO_LAMP_F_ODD OTHER_HEADER
struct virtio_lamp_config { uint16_t level; uint8_t red; uint8_t pad[5]; };
enum { VIRTIO_LAMP_F_FAR = 66 };
struct virtio_bell_config { uint32_t tone; };
"""
LAMP_C = """
#include "standard-headers/linux/virtio_lamp.h"
#define endof(c, f) (offsetof(c, f) + sizeof(((c *)0)->f))
static const VirtIOFeature feature_sizes[] = {
    {.flags = 1ULL << VIRTIO_LAMP_F_DIM, .end = endof(struct virtio_lamp_config, level)},
    {.flags = (1ULL << VIRTIO_LAMP_F_COLOUR) | (1ULL << 7), .end = endof(struct virtio_lamp_config, red)},
    {}
};
static const VirtIOConfigSizeParams params = {
    .min_size = 1, .max_size = sizeof(struct virtio_lamp_config), .feature_sizes = feature_sizes
};
static Property virtio_lamp_properties[] = {
    { .name = "dim", .info = &(qdev_prop_bit64), .bitnr = (VIRTIO_LAMP_F_DIM),
      .offset = offsetof(VirtIOLamp, host_features), .defval.u = (bool)true },
    { .name = "event", .info = &(qdev_prop_bit64), .bitnr = (VIRTIO_RING_F_EVENT_IDX),
      .offset = offsetof(VirtIOLamp, host_features), .defval.u = (bool)false },
    { .name = "far", .info = &(qdev_prop_bit64), .bitnr = ((VIRTIO_LAMP_F_FAR) % 64),
      .offset = offsetof(VirtIOLamp, features_ex[((VIRTIO_LAMP_F_FAR) / 64)]), .defval.u = (bool)true },
    { .name = "loud", .info = &(qdev_prop_bit), .bitnr = (0), .offset = offsetof(VirtIOLamp, conf), .defval.u = true },
    {},
};
static uint64_t lamp_features(VirtIODevice *vdev, uint64_t f)
{
    if (vdev->coloured) { virtio_add_feature(&f, VIRTIO_LAMP_F_COLOUR); }
    return f;
}
static void lamp_realize(DeviceState *dev)
{
    n->config_size = virtio_get_config_size(&params, n->host_features);
    virtio_init(vdev, 77, n->config_size);
}
static void lamp_save(VirtIODevice *vdev, QEMUFile *f)
{
    VirtIOLamp *s = vdev;
    qemu_put_be16s(f, &s->level[0]);
    for (i = 0; i < s->n; i++) {
        if (s->lit[i])
            qemu_put_byte(f, s->lit[i]);
        qemu_put_be32(f, lamp_index(s, i));
    }
    qemu_put_virtqueue_element(vdev, f, &s->elem);
    lamp_save_more(s, f);
    vmstate_save_state(f, &vmstate_lamp, s, NULL);
}
static int lamp_load(VirtIODevice *vdev, QEMUFile *f) { return qemu_get_be16(f); }
static void lamp_class_init(ObjectClass *klass, void *data)
{
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);
    device_class_set_props(dc, virtio_lamp_properties);
    vdc->realize = lamp_realize;
    vdc->get_features = lamp_features;
    vdc->save = lamp_save;
    vdc->vmsd = &vmstate_lamp_device;
}
static const TypeInfo lamp = { .name = "virtio-lamp-device", .parent = "virtio-device", .class_init = lamp_class_init };
"""
BELL_C = """
#include "standard-headers/linux/virtio_lamp.h"
static size_t bell_config_size(Bell *s)
{
    if (s->old_size) { return sizeof(struct virtio_bell_config) + 4; }
    return sizeof(struct virtio_bell_config);
}
static void bell_realize(DeviceState *dev) { virtio_init(vdev, 78, bell_config_size(s)); }
static void bell_class_init(ObjectClass *klass, void *data) { vdc->realize = bell_realize; }
static const TypeInfo bell = { .name = "virtio-bell-device", .parent = "virtio-device", .class_init = bell_class_init };
#define HORN_SIZE offsetof(struct virtio_lamp_config, red)
static void horn_realize(DeviceState *dev)
{
    size_t size = MAX(HORN_SIZE, virtio_feature_get_config_size(horn_sizes, dev->host_features));
    virtio_init(vdev, 80, size);
}
static const VirtIOFeature horn_sizes[] = { {.flags = 1, .end = sizeof(struct virtio_lamp_config)}, {} };
static void gong_realize(DeviceState *dev) { virtio_init(vdev, 79, from_the_host(s)); }
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qemu")
    tree = {
        "VERSION": "2.0.0\n",
        "include/standard-headers/linux/virtio_lamp.h": NAMES_H,
        "hw/misc/virtio-lamp.c": LAMP_C,
        "hw/misc/virtio-bell.c": BELL_C,
    }
    commit(folder, tree, "v2.0.0")
    with Repo(folder) as repo:
        program = Program(Revision(repo, "v2.0.0"), TARGETS["x86_64"], Files())
        return list(virtio.rows(program, Layout(program)))


def of(kind, rows):
    return [tuple(row) for row in rows if isinstance(row, kind)]


def test_features_by_bit_and_name(rows):
    assert of(virtio.VirtioFeature, rows) == [
        ("lamp", "3", "VIRTIO_LAMP_F_DIM"),
        ("lamp", "4", "VIRTIO_LAMP_F_COLOUR"),
        ("ring", "29", "VIRTIO_RING_F_EVENT_IDX"),
        ("transport", "28", "VIRTIO_TRANSPORT_F_START"),
        ("lamp", "66", "VIRTIO_LAMP_F_FAR"),
    ]


def test_features_that_a_device_offers_by_a_property_or_by_code(rows):
    device = ("virtio-lamp-device", "hw/misc/virtio-lamp.c")
    assert of(virtio.VirtioOffer, rows) == [
        (*device, "3", "VIRTIO_LAMP_F_DIM", "dim", "1", ""),
        (*device, "29", "VIRTIO_RING_F_EVENT_IDX", "event", "0", ""),
        (*device, "66", "VIRTIO_LAMP_F_FAR", "far", "1", ""),
        (*device, "4", "VIRTIO_LAMP_F_COLOUR", "", "", "lamp_features"),
    ]


def test_sizes_of_the_configuration(rows):
    found = {(device, when): size for device, _, when, size in of(virtio.VirtioConfig, rows)}
    assert found == {
        ("virtio-lamp-device", "min"): "1",
        ("virtio-lamp-device", "max"): "8",
        ("virtio-lamp-device", "VIRTIO_LAMP_F_DIM"): "2",
        ("virtio-lamp-device", "VIRTIO_LAMP_F_COLOUR"): "3",
        ("virtio-bell-device", "old_size"): "8",
        ("virtio-bell-device", ""): "4",
        ("horn_realize", "min"): "2",
        ("horn_realize", ""): "8",
    }


def test_what_a_save_function_writes_in_order(rows):
    assert [row[2:] for row in of(virtio.VirtioWrite, rows)] == [
        ("1", "be16s", "level", ""),
        ("2", "byte", "lit", "for if"),
        ("3", "be32", "lamp_index", "for"),
        ("4", "virtqueue_element", "elem", ""),
        ("5", "call", "lamp_save_more", ""),
        ("6", "description", "vmstate_lamp", ""),
    ]
    assert [row[2:] for row in of(virtio.VirtioHook, rows)] == [("vmsd", "vmstate_lamp_device"), ("save", "lamp_save")]


def test_what_is_not_understood_is_said(rows):
    found = {(file, what) for file, _, what, _ in of(virtio.Unread, rows)}
    assert found == {
        ("include/standard-headers/linux/virtio_lamp.h", "VIRTIO_LAMP_F_ODD"),
        ("hw/misc/virtio-bell.c", "gong_realize"),
    }


@cache
def offers(release, *devices):
    """(bit, name, property, default) of the features that devices offer in a release."""
    listed = of(virtio.VirtioOffer, read_release(data_path("source"), release).virtio)
    return [row[2:6] for row in listed if row[0] in devices]


def installed():
    binary = qemu("qemu-system-x86_64")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    if "version 7.2." not in version:
        pytest.skip(f"{binary} is not of 7.2, which the tables are compared with")
    return binary


@pytest.mark.parametrize("device", ["net", "blk", "scsi", "balloon", "serial"])
def test_properties_of_features_are_those_of_the_qemu_that_is_installed(device):
    done = subprocess.run(
        [installed(), "-device", f"virtio-{device}-pci,help"], capture_output=True, text=True, timeout=60, check=True
    )
    shown = dict(re.findall(r"^  (\S+)=<bool>.*\(default: (\w+)\)", done.stdout, re.MULTILINE))
    mine = {
        name: "true" if default == "1" else "false"
        for _, _, name, default in offers("7.2.0", f"virtio-{device}-device", "virtio-device")
        if name
    }
    assert len(mine) > 7
    assert {name: shown.get(name) for name in mine} == mine


def test_features_are_called_as_the_qemu_that_is_installed_calls_them():
    kinds = ("net", "blk", "scsi", "balloon", "serial", "rng", "iommu", "gpu")
    given = {"net": "mac=52:54:00:00:00:01", "blk": "drive=d"}
    command = [installed(), "-M", "q35", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"]
    command += ["-blockdev", "null-co,node-name=d"]
    for kind in kinds:
        command += ["-device", f"virtio-{kind}-pci,id={kind}" + (f",{given[kind]}" if kind in given else "")]
    paths = [f"/machine/peripheral/{kind}/virtio-backend" for kind in kinds]
    asked = [("qmp_capabilities", {})] + [("x-query-virtio-status", {"path": path}) for path in paths] + [("quit", {})]
    lines = "".join(json.dumps({"execute": name, "arguments": arguments}) + "\n" for name, arguments in asked)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60, check=False)
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    statuses = [reply["return"] for reply in replies if reply.get("return", {}) and "name" in reply["return"]]
    assert len(statuses) == len(kinds)
    for kind, status in zip(kinds, statuses, strict=True):
        features = status["host-features"]
        theirs = {line.split(":")[0] for line in features["transports"] + features.get("dev-features", [])}
        theirs -= {"VHOST_USER_F_PROTOCOL_FEATURES"}  # its name for bit 30, whatever the device
        own = "virtio-gpu-base" if kind == "gpu" else f"virtio-{kind}-device"
        rows = offers("7.2.0", own, "virtio-device", "virtio-pci", "virtio-bus")
        mine = {"VIRTIO_BLK_F_FLUSH" if name == "VIRTIO_BLK_F_WCE" else name for _, name, _, _ in rows}
        assert theirs <= mine, kind


def test_the_features_a_network_card_of_8_2_allows():
    # "Allowed features: 0x179bfffe7" of a report of QEMU 8.2.10 with a tap device on qemu-devel (September 2025): what
    # properties offer by default, the MAC address and the transport's bits, less what the host's kernel did not have.
    rows = offers("8.2.0", "virtio-net-device", "virtio-device")
    bits = {int(bit) for bit, _, _, default in rows if default == "1"} | {5, 30, 32}
    kernel = {40, 54, 55, 56}  # RING_RESET, GUEST_USO4, GUEST_USO6, HOST_USO
    assert kernel < bits
    assert sum(1 << bit for bit in bits - kernel) == 0x179BFFFE7


def test_features_and_sizes_over_the_releases():
    assert ("22", "VIRTIO_NET_F_MQ") in {row[:2] for row in offers("1.6.0", "virtio-net-pci")}
    assert "queue_reset" not in {row[2] for row in offers("7.1.0", "virtio-device")}
    assert ("40", "VIRTIO_F_RING_RESET", "queue_reset", "1") in offers("7.2.0", "virtio-device")
    sizes = {
        release: {
            row[2]: int(row[3])
            for row in of(virtio.VirtioConfig, read_release(data_path("source"), release).virtio)
            if row[0] == "virtio-net-device"
        }
        for release in ("1.6.0", "7.2.0")
    }
    # Virtio 1.2, 5.1.4: mac 6 bytes, then status, max_virtqueue_pairs and mtu, two each.
    for release in sizes:
        assert sizes[release]["VIRTIO_NET_F_MAC"] == 6 and sizes[release]["VIRTIO_NET_F_MQ"] == 10
    assert sizes["7.2.0"]["VIRTIO_NET_F_MTU"] == 12 and "VIRTIO_NET_F_MTU" not in sizes["1.6.0"]


#: Last word of a section's idstr → the device, or the function that sets its configuration's size up.
SECTIONS = {
    "virtio-net": "virtio-net-device",
    "virtio-blk": "virtio-blk-device",
    "virtio-balloon": "virtio-balloon-device",
    "virtio-console": "virtio-serial-device",
    "virtio-rng": "virtio-rng-device",
    "virtio-scsi": "virtio_scsi_common_realize",
}


@pytest.mark.parametrize(("folder", "release", "sections"), [("qemu-2.5.0", "2.5.0", 5), ("qemu-7.2", "7.2.0", 6)])
def test_configurations_in_streams_have_a_size_of_their_release(folder, release, sections):
    known = {
        (row[0], int(row[3])) for row in of(virtio.VirtioConfig, read_release(data_path("source"), release).virtio)
    }
    (file,) = data_path("streams", folder).glob("*/*+virtio.mig.zst")
    fields = vt.open(file).fields()
    lengths = fields[fields["path"] == "config_len"]
    found = {
        (SECTIONS[idstr.split("/")[-1]], int(size))
        for idstr, size in zip(lengths["section"], lengths["value"], strict=True)
    }
    assert len(found) == sections and found <= known
