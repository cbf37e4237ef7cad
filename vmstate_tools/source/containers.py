"""Containers are opened one after another until the stream is found: compression, libvirt's images, qcow2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.source import compressed, libvirt, lzop, qcow2
from vmstate_tools.source.connections import POSTCOPY, RESUMED
from vmstate_tools.source.content import collect
from vmstate_tools.source.detect import MULTIFD, identify
from vmstate_tools.source.files import behind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.source.limits import Clock
    from vmstate_tools.source.source import Source

MAX_DEPTH = 3
"""Containers in one another: libvirt's own compression in a compressed file makes three."""

_FURTHER = (MULTIFD, RESUMED, POSTCOPY)


def unwrap(
    source: Source, clock: Clock, *, snapshot: str | None, max_size: int | None, partial: bool, channel: bool
) -> None:
    """Opens container after container, until `source.view` holds the stream at `source.start`.

    The parameters are those of `open_source`; `clock` is the time that all containers together may take.
    """
    containers: list[str] = []
    packed = False
    while (kind := _identify(source, partial=partial)) != "stream" and not (kind in _FURTHER and channel):
        if kind in _FURTHER:
            raise StreamError(
                f"a {kind} of a migration",
                offset=source.start,
                expected="its main stream, given together with it",
                file=source.name,
            )
        if len(containers) == MAX_DEPTH:
            raise StreamError(f"{kind} in {' in '.join(containers[::-1])}: nested too deep", file=source.name)
        containers.append(kind)
        if kind == "libvirt":  # the stream, perhaps compressed, stands behind its header
            _read_libvirt(source)
            continue
        rest = behind(source.view, source.start)
        source.replace(collect(_inside(source, kind, rest, snapshot), source.name, max_size, clock, len(rest)))
        packed = True
    source.kind = kind
    source.container = "+".join(containers) or "raw"
    source.base = 0 if packed else source.start
    if snapshot is not None and "qcow2" not in containers:
        raise StreamError(f"no snapshot {snapshot!r}: not a qcow2 image", file=source.name)


def _identify(source: Source, *, partial: bool) -> str:
    """Returns what stands at `source.start`, or a little behind it, where `start` then is."""
    if source.damage and not partial:
        raise source.damage
    try:
        kind, source.start = identify(source.view, source.name, source.start)
    except StreamError as error:
        raise source.damage or error from None
    return kind


def _read_libvirt(source: Source) -> None:
    source.start, source.meta["libvirt"] = libvirt.read_header(source.view, source.start, source.name)
    if not source.meta["libvirt"]["finished"]:
        source.damage = StreamError("libvirt did not finish this image (LibvirtQemudPart)", file=source.name)


def _inside(source: Source, kind: str, rest: memoryview, snapshot: str | None) -> Iterator[tuple[int, bytes]]:
    """Returns what is packed in `rest`, piece by piece."""
    if kind == "qcow2":
        chosen = qcow2.pick(rest, snapshot, source.name)
        source.meta[kind] = chosen.meta()
        return qcow2.read_vmstate(rest, chosen, source.name)
    if kind == "lzop":
        return lzop.unpack(rest, source.name)
    return compressed.unpack(rest, kind, source.name)
