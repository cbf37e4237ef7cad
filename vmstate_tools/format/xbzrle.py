"""XBZRLE: a page as its difference from what the receiver already holds of it."""

from __future__ import annotations

from vmstate_tools.errors import StreamError

ENCODING = 1  # ENCODING_FLAG_XBZRLE, the only encoding there ever was (migration/ram.c, since 1.2)


def apply(delta: bytes, page: bytearray, *, offset: int | None = None) -> None:
    """Applies one encoded difference to `page`, in place.

    `delta` is pairs of (bytes to keep, bytes to replace) as ULEB128 of at most two bytes, each pair followed
    by the new bytes; what the last pair does not reach stays as it is. Rules as in QEMU's
    `xbzrle_decode_buffer` (migration/xbzrle.c; page_cache.c and savevm.c before 2.1): only the first run to
    keep may be empty.

    Raises `StreamError` (at `offset`, where the delta stands in the stream) where QEMU would refuse it.
    """
    at = 0
    position = 0
    while at < len(delta):
        keep, at = _run(delta, at, offset)
        replace, at = _run(delta, at, offset)
        if not replace or (position and not keep):
            raise StreamError("an empty run in an XBZRLE page", offset=offset, expected="runs of at least one byte")
        position += keep
        if position + replace > len(page) or at + replace > len(delta):
            raise StreamError(
                f"an XBZRLE run reaches byte {position + replace} of a page",
                offset=offset,
                expected=f"at most {len(page)}, and as many bytes in the record",
            )
        page[position : position + replace] = delta[at : at + replace]
        position += replace
        at += replace


def _run(delta: bytes, at: int, offset: int | None) -> tuple[int, int]:
    # QEMU wants two bytes left before it reads either length, though one may do.
    if len(delta) - at < 2 or (delta[at] & 0x80 and delta[at + 1] & 0x80):
        raise StreamError("a run length is cut short or too long in an XBZRLE page", offset=offset)
    if delta[at] & 0x80:
        return delta[at] & 0x7F | delta[at + 1] << 7, at + 2
    return delta[at], at + 1
