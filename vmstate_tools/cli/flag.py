"""`vmstate flag`: what a flag of the ppc CPU stands for."""

from __future__ import annotations

import click

from vmstate_tools.cli.common import example, json_option
from vmstate_tools.show.text import print_json, say, wrapped


@click.command(epilog=example("vmstate flag PPC_CILDST", "vmstate flag --json PPC2_TM MSR_TM"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def flag(names: tuple[str, ...], as_json: bool) -> None:
    """Explain what a flag of the ppc CPU stands for: facility, meaning, and the releases of QEMU that have it."""
    from vmstate_tools.facts import flags

    rows = [flags.describe(name)._asdict() for name in names]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        say(*flag_lines(row))
        bit, until = row["value"].bit_length() - 1, row["until"] or "today"
        say(f"  {row['word']}, bit {bit}, since {row['since']}, until {until}")


def flag_lines(flag: dict[str, str]) -> list[str]:
    """Returns the lines that say a flag's name, facility and meaning; its name alone where nothing more is known."""
    return wrapped(f"{flag['name']:<22} {flag['facility']}: {flag['meaning']}" if flag["meaning"] else flag["name"])
