"""`vmstate diff`: where two streams, or two -dump-vmstate files, differ."""

from __future__ import annotations

from typing import Any

import click

from vmstate_tools.cli.common import example, json_option, leave, opening_options
from vmstate_tools.show.text import print_json, print_table, say, wrapped


@click.command(epilog=example("vmstate diff old.mig new.mig", "vmstate diff --ram --json old.mig new.mig"))
@click.argument("a")
@click.argument("b")
@json_option
@click.option("--ram", is_flag=True, help="Compare the guest's memory too, page by page.")
@opening_options
def diff(a: str, b: str, as_json: bool, ram: bool, opening: dict[str, Any]) -> None:
    """Show where two streams differ: machine type, sections, versions, subsections, fields, values.

    A and B may also both be files of -dump-vmstate: then it shows where the descriptions differ, and whether a stream
    of A breaks on B for it. Exit code 0: they do not differ; 1: they do.
    """
    from vmstate_tools.vmstate.dump import is_dump

    dumps = is_dump(a) and is_dump(b)
    rows = _dump_rows(a, b) if dumps else _stream_rows(a, b, ram, opening)
    if as_json:
        print_json(rows)
    else:
        say(f"a: {a}", f"b: {b}", "" if rows else "no difference")
        if dumps:
            _print_dump_rows(rows)
        elif rows:
            _print_stream_rows(rows)
    leave(1 if rows else 0)


def _dump_rows(a: str, b: str) -> list[dict[str, Any]]:
    from vmstate_tools.vmstate.dump import dump_differences, read_dump

    return [row._asdict() for row in dump_differences(read_dump(a), read_dump(b))]


def _stream_rows(a: str, b: str, ram: bool, opening: dict[str, Any]) -> list[dict[str, Any]]:
    from vmstate_tools.analysis.differences import differences
    from vmstate_tools.cli.streams import open_file

    with open_file(a, opening) as one, open_file(b, opening) as two:
        rows = [row._asdict() for row in differences(one, two, ram=ram)]
    if not ram:
        for row in rows:
            del row["pages"]
    return rows


def _print_dump_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        where = " ".join(str(row[c]) for c in ("section", "vmsd", "field") if row[c])
        say(f"{where}: {row['kind']}: {row['a']} → {row['b']}{' (breaks)' if row['breaks'] else ''}")


def _print_stream_rows(rows: list[dict[str, Any]]) -> None:
    from vmstate_tools.vmstate.layout import format_value

    def cell(value: Any) -> str:
        text = format_value(value)
        return text if len(text) <= 20 else text[:19] + "…"

    print_table(
        ["section", "path", "kind", "=a", "=b"],
        (
            (
                row["section"] if row["instance_id"] is None else f"{row['section']}/{row['instance_id']}",
                row["path"] or row["vmsd"],
                row["kind"] if row.get("pages") is None else f"{row['pages']} pages",
                cell(row["a"]),
                cell(row["b"]),
            )
            for row in rows
        ),
    )
    for row in rows:
        if row["flags"]:
            say("", f"{row['section']}/{row['instance_id']} {row['path']}", *wrapped(", ".join(row["flags"])))
