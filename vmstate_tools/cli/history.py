"""`vmstate history`: how the words of a CPU family, or what QEMU's source says of a device, changed by release."""

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
        "vmstate history e1000.mitigation --json",
        "vmstate history pc-q35-6.2",
        "vmstate history --broken --from 6.0",
    )
)
@click.argument("device", required=False, metavar="[NAME]")
@click.option("--cpu", "name", metavar="FAMILY", help="A family of CPUs, or that of a model or alias. Without it: all.")
@click.option("--from", "since", metavar="R", help="The first release.")
@click.option("--until", metavar="R", help="The last release.")
@click.option("--accel", type=accelerators, help="The words a CPU has under this accelerator, not those of its class.")
@click.option("--machine", metavar="M", help="The words that streams of this machine type carry (--accel: tcg).")
@click.option("--broken", is_flag=True, help="Only where streams stopped to load under the same version.")
@click.option("--qemu-git", multiple=True, metavar="CLONE", help="With NAME or --broken: find the commits in it.")
@json_option
def history(
    device: str | None,
    name: str | None,
    since: str | None,
    until: str | None,
    accel: str | None,
    machine: str | None,
    broken: bool,
    qemu_git: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show how a CPU family's words changed, release by release, and the commits that changed them; or a device.

    NAME is a device type, a VMState description as a stream names it, a machine type, a property or DEVICE.PROPERTY.
    For each release that changed it: what changed, and whether a stream of the release before still loads ("forward"),
    and one of this release in the one before ("back"). "depends": on what stands behind it, often on the machine type.
    "unknown": a device's own code writes a part of it.

    --broken lists descriptions, those of NAME or all, that changed under the same version and without a gate.
    "certain": all that differs is bytes that are always there. "suspicion": something may save it, and is named.

    The releases are x.y.0. A "-" stands for a word that streams do not carry. Without --cpu the text shows only
    changes; --json has everything.
    """
    if device is not None or broken:
        from vmstate_tools.cli.device_steps import show

        leave(0 if show(device, since, until, broken, qemu_git, as_json) else 1)
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
