"""Bytes: a file, a URL, a compressed file, a libvirt image, a qcow2 snapshot → one seekable view."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.source.connections import POSTCOPY, RESUMED, Connection, in_order, pieces
from vmstate_tools.source.content import Content, collect
from vmstate_tools.source.magic import MULTIFD, identify
from vmstate_tools.source.url import is_url, read_file, read_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, BinaryIO, Self

__all__ = ["MULTIFD", "Source", "join", "open_source"]

MAX_DEPTH = 3
"""Containers in one another: libvirt's own compression in a compressed file makes three."""


class Source:
    """The bytes of one migration stream, in one piece; a context manager.

    Attributes
    ----------
    name : as the user gave it; `<bytes>` for bytes.
    container : what the stream was packed in, outermost first (`"zstd+qcow2"`); `"raw"` when in nothing.
    view : read-only memoryview of the innermost content.
    start : where in `view` the stream begins: behind a lead-in (`migrate file:PATH,offset=N`) or a libvirt
        header. The offsets that mapped-ram records count from `view`'s beginning, not from `start`.
    base : `start` where `view` is the file itself, byte for byte; else 0.
    size : bytes of the stream, `len(view) - start`.
    meta : what the containers told (libvirt's header and XML, the qcow2 snapshot's name and date).
    kind : "stream", or which kind of further connection of a migration this is.
    connections : what was joined into `view`, if several connections were (`join`); else none.
    damage : what ended the stream early, if it was opened with `partial` and something did.
    """

    def __init__(self, name: str, content: Content) -> None:
        self.name = name
        self.container = "raw"
        self.start = 0
        self.base = 0
        self.size = 0
        self.meta: dict[str, Any] = {}
        self.damage = content.damage
        self.kind = "stream"
        self.connections: list[Connection] = []
        self._content = content

    @property
    def view(self) -> memoryview:
        return self._content.view

    def forget(self, start: int, stop: int) -> None:
        """Drop the memory of `view[start:stop]`, walked and not needed for now; a touch reads it again."""
        self._content.forget(start, stop)

    def locate(self, offset: int | None) -> tuple[str, int | None]:
        """The file, and the offset there, of an offset in `view`: where connections were joined it is theirs."""
        for connection in reversed(self.connections):
            if offset is not None and connection.start <= offset:
                return connection.name, offset - connection.start
        return self.name, offset

    def close(self) -> None:
        """Let go of the bytes; arrays made over `view` keep what they need alive."""
        self._content.close()

    def _unwrap(self, snapshot: str | None, max_size: int | None, partial: bool, channel: bool) -> None:
        """Open container after container, until the stream is found."""
        name = self.name
        containers: list[str] = []
        packed = False
        while True:
            if self.damage and not partial:
                raise self.damage
            try:
                kind, self.start = identify(self.view, name, self.start)
            except StreamError as error:
                raise self.damage or error from None
            further = kind in (MULTIFD, RESUMED, POSTCOPY)
            if kind == "stream" or (further and channel):
                self.kind = kind
                break
            if further:
                raise StreamError(
                    f"a {kind} of a migration",
                    offset=self.start,
                    expected="its main stream, given together with it",
                    file=name,
                )
            if len(containers) == MAX_DEPTH:
                raise StreamError(f"{kind} in {' in '.join(containers[::-1])}: nested too deep", file=name)
            containers.append(kind)
            if kind == "libvirt":
                from vmstate_tools.source import libvirt

                self.start, self.meta[kind] = libvirt.read_header(self.view, self.start, name)
                if not self.meta[kind]["finished"]:
                    self.damage = StreamError("libvirt did not finish this image (LibvirtQemudPart)", file=name)
                continue
            rest = self.view[self.start :]
            if kind == "qcow2":
                from vmstate_tools.source import qcow2

                chosen = qcow2.pick(rest, snapshot, name)
                self.meta[kind] = chosen.meta()
                inside = qcow2.read_vmstate(rest, chosen, name)
            elif kind == "lzop":
                from vmstate_tools.source import lzop

                inside = lzop.unpack(rest, name)
            else:
                from vmstate_tools.source import compressed

                inside = compressed.unpack(rest, kind, name)
            inner = collect(inside, name, max_size, len(rest))
            self._content.close()
            self._content, self.start, packed = inner, 0, True
            self.damage = self.damage or inner.damage
        self.container = "+".join(containers) or "raw"
        self.base = 0 if packed else self.start
        self.size = len(self.view) - self.start
        if snapshot is not None and "qcow2" not in containers:
            raise StreamError(f"no snapshot {snapshot!r}: not a qcow2 image", file=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Source {self.name!r} {self.container} {self.size} bytes>"


def open_source(
    where: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    snapshot: str | None = None,
    max_size: int | None = None,
    partial: bool = False,
    channel: bool = False,
) -> Source:
    """Find the migration stream in whatever holds it.

    Parameters
    ----------
    where : a path, `-` for standard input, a URL, bytes, or an open binary file (read from where it stands).
    snapshot : which snapshot of a qcow2 image, by name or id; needed where several hold a VM's state.
    max_size : most bytes to unpack; naming it also lifts the limit on the ratio (`content.MAX_RATIO`).
    channel : accept a further connection of a migration, too.
    partial : open what there is of a file cut short or damaged; `damage` tells.

    Raises
    ------
    StreamError : empty, damaged, not a migration stream, or unpacking to more than the limits.
    OSError : the file is not there or cannot be read.
    """
    name, content = _outermost(where, max_size)
    source = Source(name, content)
    try:
        source._unwrap(snapshot, max_size, partial, channel)
    except BaseException:
        source.close()
        raise
    return source


def join(sources: Sequence[Source]) -> Source:
    """A main stream and the connections that went on with it, as one; the sources are closed.

    Raises StreamError where there is not one main stream among them.
    """
    main = [source for source in sources if source.kind == "stream"]
    if len(main) != 1:
        raise StreamError(
            f"{len(main)} of these {len(sources)} connections are main streams",
            file=", ".join(source.name for source in main or sources),
            expected="one main stream and the further connections of its migration",
        )
    if len(sources) == 1:
        return main[0]
    ordered = in_order(sources)
    size = sum(len(source.view) for source in ordered)
    joined = Source(main[0].name, collect(pieces(ordered), main[0].name, size))
    joined.container, joined.start, joined.meta = main[0].container, main[0].start, main[0].meta
    joined.base = main[0].base
    joined.size = size - joined.start
    at = 0
    for source in ordered:
        joined.connections.append(Connection(source.name, source.kind, at, at + len(source.view)))
        at += len(source.view)
        source.close()
    return joined


def _outermost(where: Any, max_size: int | None) -> tuple[str, Content]:
    """Name and content of what the user named."""
    if isinstance(where, (bytes, bytearray, memoryview)):
        return "<bytes>", Content(bytes(where))
    if hasattr(where, "read"):
        name = str(getattr(where, "name", "<file>"))
        return name, collect(read_file(where), name, max_size)
    name = os.fspath(where)
    if name == "-":
        return name, collect(read_file(sys.stdin.buffer), name, max_size)
    if name.startswith("file://"):
        from urllib.parse import unquote, urlsplit

        return name, _local(unquote(urlsplit(name).path), max_size)
    if is_url(name):
        return name, collect(read_url(name), name, max_size)
    return name, _local(name, max_size)


def _local(path: str, max_size: int | None) -> Content:
    with open(path, "rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return Content.of_file(file)
        return collect(read_file(file), path, max_size)
