"""`vmstate lint`: what in a description will break a migration one day."""

from __future__ import annotations

import click

from vmstate_tools.cli.common import example, json_option, leave
from vmstate_tools.show.text import print_json, say


@click.command(epilog=example("vmstate lint guest.mig", "vmstate lint new.json --against old.json"))
@click.argument("file", metavar="FILE|DUMP")
@click.option("--against", metavar="OTHER", help="An older one, to find changes without a new version.")
@json_option
def lint(file: str, against: str | None, as_json: bool) -> None:
    """Find what in a description will break a migration one day, and say why.

    FILE is a stream or what -dump-vmstate printed. Exit code 1: something was found.
    """
    from vmstate_tools.compat.lint import RULES, findings_in

    rows = [finding._asdict() | {"why": RULES[finding.rule]} for finding in findings_in(file, against)]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            where = " ".join(str(v) for k, v in row.items() if k not in ("rule", "why") and v not in (None, ""))
            say(f"{where}: {row['rule']}: {row['why']}")
    leave(1 if rows else 0)
