"""`vmstate matrix`: many streams against many releases."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

import click

from vmstate_tools.cli.common import Lists, example, json_option, leave, policy_option, spreadsheet_option
from vmstate_tools.errors import VmstateError
from vmstate_tools.show.text import complain, csv_text, print_json, say, standard_output


class _Releases(Lists):
    another_value = re.compile(r"v?\d+(\.\d+)+")


@click.command(cls=_Releases, epilog=example("vmstate matrix streams/*.mig.zst --to 2.7.0 2.8.0 --csv > out.csv"))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--to", "releases", metavar="R...", multiple=True, required=True, help="The destinations' releases.")
@policy_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@spreadsheet_option
@json_option
def matrix(
    files: tuple[str, ...],
    releases: tuple[str, ...],
    policy: str | None,
    as_csv: bool,
    for_spreadsheet: bool,
    as_json: bool,
) -> None:
    """Predict whether each FILE would load on each release, with the same machine type and CPU.

    Exit code 2: a FILE could not be read.
    """
    from vmstate_tools import compat
    from vmstate_tools.frames.finding import find_streams

    if as_csv and as_json:
        raise click.UsageError("either --csv or --json")
    if for_spreadsheet and not as_csv:
        raise click.UsageError("--for-spreadsheet is for --csv")
    streams = find_streams(files)
    if not streams:
        raise VmstateError(f"no streams in {', '.join(files)}")
    frame = compat.matrix(streams, releases, policy, progress=sys.stderr.isatty())
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    if as_csv:
        table: list[Iterable[Any]] = [list(frame), *(row.values() for row in rows)]
        standard_output().write(csv_text(table, for_spreadsheet=for_spreadsheet))
    elif as_json:
        print_json(rows)
    else:
        for row in rows:
            if row["error"] is None:
                text = "loads" if row["loads"] else f"refused: {row['message']}"
                say(f"{row['stream']} -> {row['release']}: {text}")
    failed = {row["stream"]: row["error"] for row in reversed(rows) if row["error"] is not None}
    for text in reversed(failed.values()):
        complain(text)
    leave(2 if failed else 0)
