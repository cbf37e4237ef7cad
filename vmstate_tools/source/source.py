"""A source is the bytes of one migration stream, whatever they were packed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from vmstate_tools.errors import StreamError
    from vmstate_tools.source.connections import Connection
    from vmstate_tools.source.content import Content


class Source:
    """A Source is the bytes of one migration stream, in one piece; a context manager.

    Attributes
    ----------
    name : as the user gave it; `<bytes>` for bytes.
    container : what the stream was packed in, outermost first (`"zstd+qcow2"`); `"raw"` when in nothing.
    view : read-only memoryview of the innermost content. Of a large file that is packed in nothing it is a
        `files.FileView`: slices of it are memoryviews, read when they are asked for, and it is no buffer itself.
    start : where in `view` the stream begins: behind a lead-in (`migrate file:PATH,offset=N`) or a libvirt
        header. The offsets that mapped-ram records count from `view`'s beginning, not from `start`.
    base : `start` where `view` is the file itself, byte for byte; else 0.
    size : bytes of the stream, `len(view) - start`.
    packed_size : bytes of the file itself, as it is compressed; of all files, if several connections were joined.
    meta : what the containers say (libvirt's header and XML, the qcow2 snapshot's name and date).
    kind : "stream", or which kind of further connection of a migration this is.
    connections : what was joined into `view`, if several connections were (`join`); else none.
    damage : what ended the stream early, if it was opened with `partial` and something did.
    """

    def __init__(self, name: str, content: Content) -> None:
        self.name = name
        self.container = "raw"
        self.start = 0
        self.base = 0
        self.packed_size = len(content.view)
        self.meta: dict[str, Any] = {}
        self.damage: StreamError | None = content.damage
        self.kind = "stream"
        self.connections: list[Connection] = []
        self._content = content

    @property
    def view(self) -> memoryview:
        return self._content.view

    @property
    def size(self) -> int:
        return len(self.view) - self.start

    def replace(self, content: Content) -> None:
        """Takes what was unpacked in place of what it was packed in, which is closed."""
        self._content.close()
        self._content, self.start = content, 0
        self.damage = self.damage or content.damage

    def forget(self, start: int, stop: int) -> None:
        """Drops the memory of `view[start:stop]`, walked and not needed for now; a touch reads it again."""
        self._content.forget(start, stop)

    def locate(self, offset: int | None) -> tuple[str, int | None]:
        """Returns the file, and the offset there, of an offset in `view`: of a connection, if several were joined."""
        for connection in reversed(self.connections):
            if offset is not None and connection.start <= offset:
                return connection.name, offset - connection.start
        return self.name, offset

    def close(self) -> None:
        """Lets go of the bytes; arrays made over `view` keep what they need alive."""
        self._content.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Source {self.name!r} {self.container}>"
