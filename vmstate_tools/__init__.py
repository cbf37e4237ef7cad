"""Decode, compare and explain QEMU migration streams."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

# Public name -> (module, name there). Loaded when first used, so that a command line starts quickly.
_PUBLIC = {
    "open": ("stream", "open_stream"),
    "Stream": ("stream", "Stream"),
    "Section": ("stream", "Section"),
    "load": ("frames", "load"),
    "Collection": ("frames", "Collection"),
    "diff": ("differences", "diff"),
    "explore": ("widgets.explore", "explore"),
    "report": ("reporting", "report"),
    "capture": ("qemu.capture", "capture"),
    "attach": ("qemu.capture", "attach"),
    "try_load": ("qemu.tryload", "try_load"),
    "confirm": ("qemu.tryload", "confirm"),
    "rewrite": ("rewriting", "rewrite"),
    "StreamError": ("errors", "StreamError"),
    "VmstateError": ("errors", "VmstateError"),
    "QemuError": ("errors", "QemuError"),
    "Destination": ("compat", "Destination"),
    "Policy": ("compat", "Policy"),
    "Verdict": ("compat", "Verdict"),
    "catalog": ("catalog", None),
    "check": ("compat", "check"),
    "diff_dumps": ("dump", "diff_dumps"),
    "lint": ("linting", "lint_file"),
    "matrix": ("compat", "matrix"),
    "policy_lab": ("widgets.policylab", "policy_lab"),
    "read_dump": ("dump", "read_dump"),
    "flags": ("flags", None),
    "fingerprint": ("fingerprints", "fingerprint"),
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    __import__(f"{__name__}.{module}")
    found = sys.modules[f"{__name__}.{module}"]
    if attribute is not None:
        found = getattr(found, attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
