"""Virtio in QEMU's source: features by bit, what devices offer by default, sizes of the configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.devices import class_functions, types
from vmstate_tools.qemu_source.macros import tokenize
from vmstate_tools.qemu_source.properties import properties
from vmstate_tools.qemu_source.virtio_config import VirtioConfig, config_sizes
from vmstate_tools.qemu_source.virtio_state import VirtioHook, VirtioWrite, hooks, writes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.layout import Layout
    from vmstate_tools.qemu_source.program import Program, Scope
    from vmstate_tools.qemu_source.properties import Property

_HEADERS = re.compile(
    r"(?:include/standard-headers|linux-headers)/linux/(?:virtio_\w+|vhost\w*)\.h"
    r"|include/hw/virtio/(?:virtio|vhost)[\w-]*\.h|hw/virtio/(?:vhost-user|virtio)\.c|hw/net/virtio-net\.c|hw/9pfs/virtio-9p\.h"
)
_SOURCES = re.compile(r"hw/(?:\w+/)*(?:virtio|vhost)[\w-]*\.c")
_FEATURE = re.compile(r"VIRTIO_(?:([A-Z0-9]+)_)?F_\w+|VHOST_(?:NET_|USER_)?F_\w+|VIRTIO_(9P)_MOUNT_TAG")
_TRANSPORTS = re.compile(r"hw/(?:virtio|s390x)/(virtio-(?:bus|pci|mmio|ccw))\.c")
#: Functions of a virtio class in which QEMU's code adds features to those of properties.
_GETS = re.compile(r"->\s*(?:get_features(?:_ex)?|realize)\s*=\s*(\w+)\s*;")
_ADDS = re.compile(
    r"virtio_add_feature\s*\(\s*[^,;]*,\s*(\w+)\s*\)|\|=\s*\(?\s*(?:0x)?1[uUlL]*\s*<<\s*(VIRTIO_\w*F_\w+)"
)
#: Bits up to here are a device's own (Virtio 1.0, 2.2 Feature Bits); the next 17 or more belong to all devices.
_OWN = 24
_FAMILIES = {"serial": "console", "vga": "gpu"}


class VirtioFeature(NamedTuple):
    """A feature bit: the device it belongs to (`transport` and `ring` for bits of all devices), its number and name.

    VIRTIO_TRANSPORT_F_START and _END are the first bit that is kept for transports and the one after the last (the
    last itself in some headers).
    """

    device: str
    bit: str
    name: str


class VirtioOffer(NamedTuple):
    """A feature that a device may offer to its guest.

    Attributes
    ----------
    device : QOM type, or name of the transport.
    property, default : the property that says whether it is offered; '' where QEMU's code adds the feature.
    function : the function that adds it, perhaps on a condition.
    """

    device: str
    file: str
    bit: str
    name: str
    property: str
    default: str
    function: str


class Unread(NamedTuple):
    """Something that was not understood."""

    file: str
    line: int
    what: str
    problem: str


Row = VirtioFeature | VirtioOffer | VirtioConfig | VirtioHook | VirtioWrite

#: Name of a table of `data/source` → what a row of it is.
TABLES: dict[str, type[Row]] = {
    "virtio_features": VirtioFeature,
    "virtio_offers": VirtioOffer,
    "virtio_config": VirtioConfig,
    "virtio_hooks": VirtioHook,
    "virtio_writes": VirtioWrite,
}


def rows(program: Program, layout: Layout) -> Iterator[Row | Unread]:
    """Yields what one release says of virtio, and an `Unread` for each thing that was not understood."""
    named: dict[str, int] = {}
    features: list[VirtioFeature] = []
    for path in program.revision.blobs:
        if _HEADERS.fullmatch(path):
            for row in _features(program.scope(path), layout):
                yield row
                if isinstance(row, VirtioFeature):
                    features.append(row)
                    named.setdefault(row.name, int(row.bit))
    for path in program.revision.blobs:
        if _SOURCES.fullmatch(path):
            try:
                yield from _of_source(program.scope(path), layout, features, named)
            except (CatalogError, RecursionError) as error:
                yield Unread(path, 0, "virtio", str(error))


def _of_source(
    scope: Scope, layout: Layout, features: list[VirtioFeature], named: dict[str, int]
) -> Iterator[Row | Unread]:
    yield from _offers(scope, layout, features)
    yield from _added_offers(scope, layout, named)
    for what, size in config_sizes(scope, layout):
        yield size if isinstance(size, VirtioConfig) else Unread(scope.path, 0, what, size)
    yield from hooks(scope, layout)
    yield from writes(scope)


def _features(scope: Scope, layout: Layout) -> Iterator[VirtioFeature | Unread]:
    view = scope.view
    places = {name: defined[-1][0] for name, defined in view.own.items() if defined[-1][1] is not None}
    for name, at in {**places, **view.enumerators}.items():
        match = _FEATURE.fullmatch(name)
        if match is None:
            continue
        try:
            bit = layout.integer(scope.expand([name]), scope)
        except CatalogError as error:
            yield Unread(scope.path, view.line(at), name, str(error))
            continue
        device = (match[1] or match[2] or ("vhost" if name.startswith("VHOST") else "transport")).lower()
        yield VirtioFeature(device, str(bit), name)


def family(device: str, families: set[str]) -> str:
    """Returns the kind of virtio device that a QOM type is, as features are named by it: `net`; '' for all kinds."""
    words = device.removesuffix("-device").split("-")
    found = [_FAMILIES.get(word, word) for word in words]
    return next((word for word in found if word in families and word not in ("vhost", "transport", "ring")), "")


def _limit(feature: VirtioFeature) -> bool:
    """Tells whether a row is the first or the last bit of a range rather than a feature."""
    return feature.name in ("VIRTIO_TRANSPORT_F_START", "VIRTIO_TRANSPORT_F_END")


def _offers(scope: Scope, layout: Layout, features: list[VirtioFeature]) -> Iterator[VirtioOffer]:
    listed = [p for p in properties(scope, layout) if p.bit and "features" in p.field]
    if not listed:
        return
    families = {f.device for f in features}
    for type_ in types(scope, layout):
        for prop in listed:
            if type_.name is None or prop.list not in type_.properties:
                continue
            bit = _bit(prop, scope, layout)
            kinds = [family(type_.name, families)] if bit < _OWN or bit >= 50 else ["transport", "ring"]
            named = (f.name for f in features if f.bit == str(bit) and f.device in kinds and not _limit(f))
            yield VirtioOffer(type_.name, scope.path, str(bit), next(named, ""), prop.name, prop.default, "")


def _bit(prop: Property, scope: Scope, layout: Layout) -> int:
    """Returns the number of a property's bit, in a single word or in an array of words of 64 bits (since 10.2)."""
    word = re.search(r"\[(.*)\]\Z", prop.field)
    return int(prop.bit) + (64 * layout.integer(tokenize(word[1]), scope) if word is not None else 0)


def _added_offers(scope: Scope, layout: Layout, named: dict[str, int]) -> Iterator[VirtioOffer]:
    transport = _TRANSPORTS.fullmatch(scope.path)
    found: list[tuple[str, str, str]] = []
    if transport is not None:
        found = [(transport[1], name, scope.view.slice(chunk)) for name, chunk in scope.view.functions.items()]
    for type_ in types(scope, layout):
        for here, source, _ in class_functions(scope, type_.class_init) if type_.name else ():
            for match in _GETS.finditer(source):
                function = here.function(match[1])
                if function is not None:
                    found.append((type_.name or "", match[1], function[1]))
    for device, function_name, source in found:
        for match in _ADDS.finditer(source):
            name = match[1] or match[2]
            bit = named.get(name)
            if bit is None:
                try:
                    bit = layout.integer(scope.expand(tokenize(name)), scope)
                except CatalogError:
                    continue  # a variable: the function handles bits that it is given
            yield VirtioOffer(device, scope.path, str(bit), name, "", "", function_name)
