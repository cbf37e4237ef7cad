"""What `vmstate info` says of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.analysis.fingerprint import fingerprint
from vmstate_tools.cli.files import over
from vmstate_tools.show.text import print_table, say, wrapped
from vmstate_tools.stream.summary import by_section
from vmstate_tools.stream.summary import summarize as summarized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from vmstate_tools.stream.stream import Stream

_PAGES = {
    "zero": "zero pages",
    "normal": "full pages",
    "xbzrle": "xbzrle",
    "compressed": "compressed",
    "multifd_zero": "multifd zero",
    "multifd_normal": "multifd full",
}


def show(files: Sequence[str], opening: Mapping[str, Any], *, ram: bool = False) -> int:
    """`vmstate info` as text; the exit code."""
    return over(files, opening, lambda stream: print_info(summarize(stream), ram))[1]


def summarize(stream: Stream) -> dict[str, Any]:
    """The summary of a stream, and which releases can have written it (`written_by`)."""
    return summarized(stream) | {"written_by": fingerprint(stream).to_json()}


def print_info(summary: dict[str, Any], ram: bool) -> None:
    """The summary as text; `ram` with the pages of each block by kind."""
    say(summary["file"])
    facts = {
        "machine": summary["machine"] or "not said",
        "page size": "not said" if summary["page_size"] is None else f"{summary['page_size']}",
        "size": f"{summary['size']:,} bytes" + ("" if summary["container"] == "raw" else f" ({summary['container']})"),
        "described": f"{summary['coverage']['described']:,} bytes",
        "opaque": f"{summary['coverage']['opaque']:,} bytes",
        "vmdesc": "none" if summary["vmdesc_size"] is None else f"{summary['vmdesc_size']:,} bytes",
    }
    for name, value in summary["configuration"].items():
        if name in ("capabilities", "uuid"):
            facts[name] = " ".join(value) if isinstance(value, list) else value
    if summary["commands"]:
        facts["commands"] = " ".join(summary["commands"])
    written = summary["written_by"]
    facts["written by"] = f"QEMU {_runs(written)}" if written["runs"] else "no release of QEMU"
    for name, value in facts.items():
        say(f"  {name:<13}{value}")
    for e in written["evidence"]:
        say(*wrapped(f"{_runs(e)}: {e['what']} ({e['where']})", 4))
    say()
    print_table(
        ["section", ">version", ">parts", ">offset", ">size", ">share", "read by"],
        (
            (
                f"{s['idstr']}/{s['instance_id']}",
                str(s["version_id"]),
                str(s["parts"]),
                f"{s['offset']}",
                f"{s['size']}",
                f"{s['size'] / summary['size']:.1%}",
                s["how"],
            )
            for s in by_section(summary)
        ),
    )
    say()
    if summary["ram"]:
        kinds = [k for k in _PAGES if any(b[k] for b in summary["ram"])] if ram else []
        names = ["RAM block", ">size", *(f">{_PAGES[k]}" for k in kinds), *([">bytes"] if ram else [])]
        rows = (
            (b["block"], _size(b["used_length"]), *(str(b[k]) for k in kinds), *([str(b["bytes"])] if ram else []))
            for b in summary["ram"]
        )
        print_table(names, rows)
        say()


def _runs(written: dict[str, Any]) -> str:
    return ", ".join(f"{r[:-1]} or newer" if r.endswith("-") else r for r in written["runs"]) or "no release"


def _size(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)
