"""`vmstate info`: what a stream holds."""

from __future__ import annotations

from typing import Any

import click

from vmstate_tools.cli.common import example, files_argument, json_option, leave, opening_options
from vmstate_tools.show.text import print_json, print_table, say, wrapped

_PAGES = {
    "zero": "zero pages",
    "normal": "full pages",
    "xbzrle": "xbzrle",
    "compressed": "compressed",
    "multifd_zero": "multifd zero",
    "multifd_normal": "multifd full",
}


@click.command(
    epilog=example("vmstate info guest.mig", "vmstate info --ram guest.mig", "vmstate info --json *.mig.zst")
)
@files_argument
@json_option
@click.option("--ram", is_flag=True, help="Count the pages of each RAM block, by kind.")
@opening_options
def info(files: tuple[str, ...], as_json: bool, ram: bool, opening: dict[str, Any]) -> None:
    """Show what a stream holds: machine type, sections, RAM blocks; and which releases can have written it.

    With --json and one FILE one object, with several a list of them.
    """
    from vmstate_tools.analysis.fingerprint import fingerprint
    from vmstate_tools.cli.streams import each_stream
    from vmstate_tools.stream.summary import summarize

    def work(stream: Any) -> dict[str, Any]:
        summary = summarize(stream) | {"written_by": fingerprint(stream).to_json()}
        if not as_json:
            _print_info(summary, ram)
        return summary

    found, code = each_stream(files, opening, work)
    if as_json and (found or len(files) > 1):
        print_json(found[0] if len(files) == 1 else found)
    leave(code)


def _print_info(summary: dict[str, Any], ram: bool) -> None:
    """Prints the summary as text; with `ram` the pages of each block by kind."""
    from vmstate_tools.stream.summary import by_section

    say(summary["file"])
    for name, value in _facts(summary).items():
        say(f"  {name:<13}{value}")
    for e in summary["written_by"]["evidence"]:
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


def _facts(summary: dict[str, Any]) -> dict[str, str]:
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
    return facts


def _runs(written: dict[str, Any]) -> str:
    return ", ".join(f"{r[:-1]} or newer" if r.endswith("-") else r for r in written["runs"]) or "no release"


def _size(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)
