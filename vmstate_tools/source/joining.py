"""Several connections of one migration are joined into one source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.source.connections import POSTCOPY, RESUMED, Connection
from vmstate_tools.source.content import collect
from vmstate_tools.source.limits import Clock
from vmstate_tools.source.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CHUNK = 1 << 20
_ORDER = ("stream", RESUMED, POSTCOPY)


def join(sources: Sequence[Source]) -> Source:
    """Returns a main stream and the connections that went on with it, as one source; the sources are closed.

    The main stream comes first, then what resumed it in the order given, then the postcopy connections. Raises
    StreamError where there is not one main stream among them.
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
    ordered = sorted(sources, key=lambda source: _ORDER.index(source.kind))
    size = sum(len(source.view) for source in ordered)
    joined = Source(main[0].name, collect(_pieces(ordered), main[0].name, size, Clock(size)))
    joined.container, joined.start, joined.meta = main[0].container, main[0].start, main[0].meta
    joined.base = main[0].base
    joined.packed_size = sum(source.packed_size for source in ordered)
    at = 0
    for source in ordered:
        joined.connections.append(Connection(source.name, source.kind, at, at + len(source.view)))
        at += len(source.view)
        source.close()
    return joined


def _pieces(sources: Sequence[Source]) -> Iterator[tuple[int, bytes]]:
    """Returns the bytes of all sources, one after another, as `collect` takes them."""
    done = 0
    for source in sources:
        for at in range(0, len(source.view), _CHUNK):
            data = bytes(source.view[at : at + _CHUNK])
            done += len(data)
            yield done, data
