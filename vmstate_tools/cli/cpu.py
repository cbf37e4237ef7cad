"""`vmstate cpu`: the words of the CPUs that QEMU checks."""

from __future__ import annotations

from typing import Any

import click

from vmstate_tools.cli.common import (
    accelerators,
    example,
    files_argument,
    json_option,
    leave,
    manifest_option,
    opening_options,
)
from vmstate_tools.cli.flag import flag_lines
from vmstate_tools.errors import CatalogError
from vmstate_tools.show.text import complain, print_json, say, wrapped


@click.command(
    epilog=example(
        "vmstate cpu guest.mig --explain", "vmstate cpu --json *.mig.zst", "vmstate cpu guest.mig --against 2.6.0"
    )
)
@files_argument
@json_option
@click.option("--against", metavar="RELEASE", help="Say which flags are new or gone against this release of QEMU.")
@click.option(
    "--accel", type=accelerators, default="tcg", show_default=True, help="What RELEASE would run the guest with."
)
@click.option("--explain", is_flag=True, help="Say of each flag what it stands for.")
@manifest_option
@opening_options
def cpu(
    files: tuple[str, ...],
    as_json: bool,
    against: str | None,
    accel: str,
    explain: bool,
    manifest: str | None,
    opening: dict[str, Any],
) -> None:
    """Show the words of a ppc CPU that QEMU checks, with flag names.

    A manifest.csv beside a stream says its release and CPU model; without it the PVR says the model. --against
    compares with the words that this model has in RELEASE; a flag that RELEASE does not know is called unknown.
    """
    from vmstate_tools.analysis.stream_cpus import compared_with, explained, stream_cpus
    from vmstate_tools.cli.streams import each_stream
    from vmstate_tools.frames.manifest import manifest_rows

    if against is not None:
        from vmstate_tools.facts.releases import expect_release, resolve

        expect_release(against)
        against = resolve(against, nearest=True)
    labels = manifest_rows(files, manifest)
    found, code = each_stream(files, opening, lambda stream: stream_cpus(stream, labels.get(stream.name)))
    rows = [row for each in found for row in each]
    for row in rows:
        if against is not None:
            try:
                row["against"] = compared_with(row, against, accel)
            except CatalogError as err:
                complain(f"{row['file']}: cpu/{row['section_instance']}: {err}")
                row["against"], code = None, 2
        if explain:
            row["explained"] = explained(row["flags"])
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            _print_cpu(row)
    leave(code)


def _print_cpu(row: dict[str, Any]) -> None:
    say(f"{row['file']}: cpu/{row['section_instance']}")
    for name in ("release", "machine", "model"):
        if row[name]:
            say(f"  {name:<14}{row[name]}")
    for name in ("pvr", "msr_mask", "insns_flags", "insns_flags2", "nb_bats"):
        value = row[name]
        digits = 8 if name == "pvr" else 16
        shown = "not sent" if value is None else str(value) if name == "nb_bats" else f"0x{value:0{digits}x}"
        say(f"  {name:<14}{shown}")
    if row.get("explained"):
        say(*(line for flag in row["explained"] for line in flag_lines(flag)))
    elif row["flags"]:
        say(*wrapped(", ".join(row["flags"])))
    if found := row.get("against"):
        say("", f"  against QEMU {found['release']} under {found['accel'].upper()}")
        new = [f"{name} (unknown there)" if name in found["unknown"] else name for name in found["new"]]
        say(*wrapped("new:  " + (", ".join(new) or "none")), *wrapped("gone: " + (", ".join(found["gone"]) or "none")))
    say()
