"""Bytes: a file, a URL, a compressed file, a libvirt image, a qcow2 snapshot → one view of a migration stream.

opening, source, joining : what the rooms above call
files, content, sink, limits : how bytes are held, and how many
detect, containers : what bytes are, and what is in them
compressed, lzop, libvirt, qcow2, url, connections : one module for each thing that holds a stream
parsing : formats stated in construct, for this room and `format`
new_file : the files that the package writes
zstd : which library does zstd
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmstate_tools.source.detect import MULTIFD
    from vmstate_tools.source.joining import join
    from vmstate_tools.source.opening import open_source
    from vmstate_tools.source.source import Source

__all__ = ["MULTIFD", "Source", "join", "open_source"]

_MODULES = {"MULTIFD": "detect", "Source": "source", "join": "joining", "open_source": "opening"}


def __getattr__(name: str) -> Any:
    """Imports a module when its name is asked for: who wants `zstd` alone need not wait for all."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
