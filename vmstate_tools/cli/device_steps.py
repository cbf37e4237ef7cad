"""What `vmstate history NAME` and `--broken` print: steps of devices, properties and machine types, by release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vmstate_tools.facts.commits import short
from vmstate_tools.show.text import complain, print_json, say, wrapped


def show(
    name: str | None, since: str | None, until: str | None, broken: bool, clones: Sequence[str], as_json: bool
) -> bool:
    """Prints the steps of a name, or all steps at which streams broke; returns whether there is one.

    Raises
    ------
    CatalogError : nothing has that name; a clone is none; a bound is no release.
    """
    from vmstate_tools.release import Release

    low, high = (Release(bound) if bound else None for bound in (since, until))
    rows = _breaks(name, clones) if broken else _steps(name or "", clones)
    found = [row for row in rows if Release(row["release"]).within(low, high)]
    if as_json:
        print_json(found)
        return bool(found)
    for row in found:
        _print(row)
    if not found:
        complain("no change matches")
    elif broken:
        certain = sum(row["certainty"] == "certain" for row in found)
        say(f"steps: {len(found)}, certain: {certain}, suspicions: {len(found) - certain}")
    return bool(found)


def _steps(name: str, clones: Sequence[str]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from vmstate_tools.facts import source_history
    from vmstate_tools.facts.device_history import changes, described_by
    from vmstate_tools.facts.source import place

    kinds = source_history.kinds_of(name)
    rows: list[dict[str, Any]] = []
    if "description" in kinds or "device type" in kinds:
        for each in described_by(name, needs=False):
            rows += [_row(change, clones) for change in changes(each)]
    rows += [{**asdict(step), "what": list(step.what)} for step in source_history.steps(name)]
    return sorted(rows, key=lambda row: place(row["release"]))


def _row(change: Any, clones: Sequence[str]) -> dict[str, Any]:
    from dataclasses import asdict

    row = {"kind": "description", **asdict(change), "broken": change.broken}
    if clones:
        from vmstate_tools.facts.breaks import commits

        row["commits"] = commits(change, [Path(clone) for clone in clones])
    return {key: list(cell) if isinstance(cell, tuple) else cell for key, cell in row.items()}


def _breaks(name: str | None, clones: Sequence[str]) -> Iterable[dict[str, Any]]:
    from vmstate_tools.facts import source_history
    from vmstate_tools.facts.breaks import breaks
    from vmstate_tools.facts.device_history import described_by
    from vmstate_tools.facts.source import place

    if name is not None:
        source_history.kinds_of(name)
    found = breaks(None if name is None else described_by(name, needs=False))
    rows = [
        {
            **_row(item.change, clones),
            "devices": list(item.devices),
            "saved_by": list(item.saved_by),
            "afterwards": list(item.afterwards),
            "certainty": item.certainty,
            "why": item.why,
        }
        for item in found
    ]
    return sorted(rows, key=lambda row: place(row["release"]))


def _print(row: Mapping[str, Any]) -> None:
    place = ", ".join(filter(None, (row["file"], row["targets"])))
    say(f"{row['name']}  {row['before']} → {row['release']}  ({place})")
    for line in row["what"]:
        say(f"    {line}")
    mark = "  BREAKS under the same version" if row.get("broken") else ""
    say(f"  forward: {row['forward']}  back: {row['back']}{mark}")
    if "depends" in (row["forward"], row["back"]) and row.get("gates"):
        say(*wrapped(f"depends on {', '.join(row['gates'])}", 2))
    if row.get("certainty"):
        say(*wrapped(f"{row['certainty']}: {row['why']}", 2))
    elif row.get("why"):
        say(*wrapped(row["why"], 2))
    for label in ("devices", "saved_by"):
        if row.get(label):
            say(*wrapped(f"{label.replace('_', ' ')}: {', '.join(row[label])}", 2))
    for line in row.get("afterwards", ()):
        say(*wrapped(f"then {line}", 2))
    for commit in row.get("commits", ()):
        say(f"    {short(commit['commit'])} {commit['date']} {commit['subject']}")
    say("")
