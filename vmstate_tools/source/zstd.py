"""zstd, by the standard library since Python 3.14 and by its backport before.

Its decompressor bounds the memory of a frame's window and the bytes that a call gives, and says where a frame ends:
`zstandard`, which has more users, does the second in no interface that also does the third.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if sys.version_info >= (3, 14):
    from compression.zstd import (
        CompressionParameter,
        DecompressionParameter,
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
        ZstdFile,
        compress,
        decompress,
    )
else:
    from backports.zstd import (
        CompressionParameter,
        DecompressionParameter,
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
        ZstdFile,
        compress,
        decompress,
    )

if TYPE_CHECKING:
    from typing import IO

__all__ = [
    "CompressionParameter",
    "DecompressionParameter",
    "ZstdCompressor",
    "ZstdDecompressor",
    "ZstdError",
    "ZstdFile",
    "compress",
    "decompress",
    "reader",
    "writer",
]


def reader(file: IO[bytes]) -> ZstdFile:
    """Returns an open file that unpacks `file`, of any number of frames. It leaves `file` open."""
    return ZstdFile(file)


def writer(file: IO[bytes], level: int | None = None) -> ZstdFile:
    """Returns an open file that compresses into `file`, with a checksum at the end. It leaves `file` open."""
    options = {int(CompressionParameter.checksum_flag): 1}
    if level is not None:
        options[int(CompressionParameter.compression_level)] = level
    return ZstdFile(file, "w", options=options)
