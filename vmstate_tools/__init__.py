"""Decode, compare and explain QEMU migration streams."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see; `_PUBLIC` says the same for the interpreter, held by a test
    from vmstate_tools.analysis.differences import diff as diff
    from vmstate_tools.analysis.fingerprint import fingerprint as fingerprint
    from vmstate_tools.compat.destination import Destination as Destination
    from vmstate_tools.compat.lint import lint_file
    from vmstate_tools.compat.load import check as check
    from vmstate_tools.compat.matrix import matrix as matrix
    from vmstate_tools.compat.policy import Policy as Policy
    from vmstate_tools.compat.verdict import Verdict as Verdict
    from vmstate_tools.emulator.attach import attach as attach
    from vmstate_tools.emulator.capture import capture as capture
    from vmstate_tools.emulator.confirm import confirm as confirm
    from vmstate_tools.emulator.tryload import try_load as try_load
    from vmstate_tools.errors import QemuError as QemuError
    from vmstate_tools.errors import StreamError as StreamError
    from vmstate_tools.errors import VmstateError as VmstateError
    from vmstate_tools.facts import catalog as catalog
    from vmstate_tools.facts import flags as flags
    from vmstate_tools.frames.collection import Collection as Collection
    from vmstate_tools.frames.loading import load as load
    from vmstate_tools.rewriting.file import rewrite as rewrite
    from vmstate_tools.show.reports import report as report
    from vmstate_tools.show.widgets.explore import explore as explore
    from vmstate_tools.show.widgets.policylab import policy_lab as policy_lab
    from vmstate_tools.stream.records import Section as Section
    from vmstate_tools.stream.stream import Stream as Stream
    from vmstate_tools.stream.stream import open_stream
    from vmstate_tools.vmstate.dump import diff_dumps as diff_dumps
    from vmstate_tools.vmstate.dump import read_dump as read_dump

    lint, open = lint_file, open_stream  # noqa: A001 - so that strict checkers take them for exported

__version__ = "0.1.0"

# Public name → where it is defined. Imported when first used: pandas alone takes half a second, and a command that
# answers a question about one stream needs none of it.
_PUBLIC = {
    "Collection": "frames.collection:Collection",
    "Destination": "compat.destination:Destination",
    "Policy": "compat.policy:Policy",
    "QemuError": "errors:QemuError",
    "Section": "stream.records:Section",
    "Stream": "stream.stream:Stream",
    "StreamError": "errors:StreamError",
    "Verdict": "compat.verdict:Verdict",
    "VmstateError": "errors:VmstateError",
    "attach": "emulator.attach:attach",
    "capture": "emulator.capture:capture",
    "catalog": "facts.catalog",
    "check": "compat.load:check",
    "confirm": "emulator.confirm:confirm",
    "diff": "analysis.differences:diff",
    "diff_dumps": "vmstate.dump:diff_dumps",
    "explore": "show.widgets.explore:explore",
    "fingerprint": "analysis.fingerprint:fingerprint",
    "flags": "facts.flags",
    "lint": "compat.lint:lint_file",
    "load": "frames.loading:load",
    "matrix": "compat.matrix:matrix",
    "open": "stream.stream:open_stream",
    "policy_lab": "show.widgets.policylab:policy_lab",
    "read_dump": "vmstate.dump:read_dump",
    "report": "show.reports:report",
    "rewrite": "rewriting.file:rewrite",
    "try_load": "emulator.tryload:try_load",
}

__all__ = ["__version__", *_PUBLIC]


if not TYPE_CHECKING:  # hidden from type checkers, for which any name would otherwise exist

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in ("load", "Collection"):
            importlib.import_module(f"{__name__}.facts.frame_names")  # its frames show names of flags and models
        module, _, attribute = _PUBLIC[name].partition(":")
        found = importlib.import_module(f"{__name__}.{module}")
        value = globals()[name] = getattr(found, attribute) if attribute else found
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_PUBLIC})
