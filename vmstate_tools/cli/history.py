"""`vmstate history`: how a device's description, or the words of a CPU family, changed from release to release."""

from __future__ import annotations

from typing import Any

import click

from vmstate_tools.cli.common import accelerators, example, json_option, leave
from vmstate_tools.errors import VmstateError
from vmstate_tools.show.text import complain, print_json, print_table, say, wrapped

_COLUMNS = ("family", "release", "insns_flags", "insns_flags2", "msr_mask", "added", "removed", "commits")


@click.command(
    epilog=example(
        "vmstate history --cpu POWER8 --from 2.6 --until 2.8",
        "vmstate history --cpu POWER7_v2.3 --accel tcg --machine pseries-2.6 --json",
        "vmstate history --from 1.6",
        "vmstate history e1000e",
        "vmstate history --broken --from 6.0",
    )
)
@click.argument("device", required=False)
@click.option("--cpu", "name", metavar="FAMILY", help="A family of CPUs, or that of a model or alias. Without it: all.")
@click.option("--from", "since", metavar="R", help="The first release.")
@click.option("--until", metavar="R", help="The last release.")
@click.option("--accel", type=accelerators, help="The words a CPU has under this accelerator, not those of its class.")
@click.option("--machine", metavar="M", help="The words that streams of this machine type carry (--accel: tcg).")
@click.option("--broken", is_flag=True, help="Devices: only where streams stopped to load under the same version.")
@json_option
def history(
    device: str | None,
    name: str | None,
    since: str | None,
    until: str | None,
    accel: str | None,
    machine: str | None,
    broken: bool,
    as_json: bool,
) -> None:
    """Show how a CPU family's words changed, release by release, and the commits that changed them; or a device.

    DEVICE is a device type, or the name of a VMState description as in a stream. For each release that changed it:
    what changed, and whether a stream of the release before still loads, and one of this release in the one before.
    "depends": on a test function, and with it often on the machine type. "unknown": a device's own code writes a part
    of it. --broken without DEVICE looks at all.

    The releases are x.y.0. A "-" stands for a word that streams do not carry. Without --cpu the text shows only
    changes; --json has everything.
    """
    if device is not None or broken:
        _devices(device, since, until, broken, as_json)
        return
    from vmstate_tools.facts.family_history import history_rows
    from vmstate_tools.facts.tables import rows as table
    from vmstate_tools.release import Release

    low, high = (Release(bound) if bound else None for bound in (since, until))
    names = [name] if name else sorted({row["family"] for row in table("catalog", "families")}, key=str.lower)
    document = []
    for family in names:
        try:
            rows = history_rows(family, accel, machine, sent=machine is not None)
        except VmstateError:
            if name:
                raise
            continue  # not on this machine type
        rows = [row for row in rows if Release(row["release"]).within(low, high)]
        # A family of one release may have the name of another's model: it is shown once.
        rows = [row for row in rows if name or row["family"] == family]
        document += [{key: row[key] for key in _COLUMNS} for row in rows]
        if not as_json:
            _print_history(rows, words=name is not None)
    if as_json:
        print_json(document)
    elif not document:
        complain("no release matches")
    leave(0 if document else 1)


def _print_history(rows: list[dict[str, Any]], words: bool) -> None:
    from vmstate_tools.facts.commits import short

    changed = [row for row in rows if row["added"] or row["removed"] or row["commits"]]
    if rows and (words or changed):
        say(rows[-1]["family"])
    if rows and words:
        columns = ("msr_mask", "insns_flags", "insns_flags2")
        print_table(
            ["=release", "=date", *(f"={word}" for word in columns)],
            ((r["release"], r["date"], *("-" if r[w] is None else f"{r[w]:#x}" for w in columns)) for r in rows),
        )
        say()
    for row in changed:
        say(f"  {row['release']}")
        for sign, names in (("+", row["added"]), ("-", row["removed"])):
            if names:
                say(*(f"  {line}" for line in wrapped(f"{sign} {', '.join(names)}")))
        for commit in row["commits"]:
            say(f"    {short(commit['commit'])} {commit['date']} {commit['subject']}")
    if changed:
        say()


def _devices(device: str | None, since: str | None, until: str | None, broken: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from vmstate_tools.facts.device_history import changes, described_by
    from vmstate_tools.release import Release

    low, high = (Release(bound) if bound else None for bound in (since, until))
    names: list[str | None] = list(described_by(device)) if device is not None else [None]
    found = [
        change
        for name in names
        for change in changes(name)
        if (change.broken or not broken) and Release(change.release).within(low, high)
    ]
    if as_json:
        print_json([{**asdict(change), "what": list(change.what), "broken": change.broken} for change in found])
    for change in () if as_json else found:
        place = ", ".join(filter(None, (change.file, change.targets)))
        say(f"{change.name}  {change.before} → {change.release}  ({place})")
        for line in change.what:
            say(f"    {line}")
        mark = "  BREAKS under the same version" if change.broken else ""
        say(f"  forward: {change.forward}  back: {change.back}{mark}", "")
    if not found:
        complain("no change matches")
    leave(0 if found else 1)
