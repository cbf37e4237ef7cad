"""Steps at which a description changed so that a stream of the same version no longer loads, and what may save it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vmstate_tools.facts import source
from vmstate_tools.facts.device_history import REFUSED, Change, changes, forms_of
from vmstate_tools.facts.properties import properties_in
from vmstate_tools.facts.tables import Row

if TYPE_CHECKING:
    from vmstate_tools.qemu_source.git import Repo

CERTAIN, SUSPICION = "certain", "suspicion"


@dataclass(frozen=True)
class Break:
    """A change under the same version that no test function and no `needed` of a subsection gates.

    Attributes
    ----------
    devices : the device types whose class has the description; of a struct, those of its file.
    saved_by : entries of compatibility lists that came in the same release, with their property, for one of these
        devices: one may keep what was for older machine types. Whether it does is in the device's code, which the
        tables do not have.
    afterwards : what later releases did about it: versions raised, functions that a field or subsection got, and the
        entries of compatibility lists that came with these. Old streams of the releases between stay as they are.
    certainty : "certain" where all that differs is bytes that are always there and no such entry came, else
        "suspicion"; `why` says what is open.
    """

    change: Change
    devices: tuple[str, ...]
    saved_by: tuple[str, ...]
    afterwards: tuple[str, ...]
    certainty: str
    why: str


def breaks(names: Iterable[str] | None = None) -> Iterator[Break]:
    """Yields every break of the descriptions of some names, or of all, in order of name and release.

    Raises
    ------
    CatalogError : no description has one of the names.
    """
    for name in [None] if names is None else names:
        for change in changes(name):
            if change.broken and not refused_by_version(change):
                yield _judged(change)


def refused_by_version(change: Change, depth: int = 0) -> bool:
    """Tells whether a struct is only in descriptions that refuse older streams since the same step, by their version.

    A struct has no version of its own in a stream. Where the section's version was raised and its minimum was not, the
    new release takes an old stream, and reads the struct amiss.
    """
    if depth > 5 or (change.file, change.symbol) in _devices()[0]:
        return False
    at = source.place(change.release)
    outer = _naming("fields", "vmsd", change)
    if any(row["file"] == change.file for row in _naming("subsections", "symbol", change)):
        return False  # a subsection has its own version
    outer = [row for row in outer if row["file"] == change.file] or outer
    held = {(row["name"], row["file"], row["symbol"]) for row in source.holding(outer, at) if row["name"]}
    found = []
    for name, file, symbol in held:
        theirs = [c for c in changes(name) if (c.release, c.file, c.symbol) == (change.release, file, symbol)]
        found.append(bool(theirs) and all(_tells(c, depth) for c in theirs))
    return bool(found) and all(found)


def _naming(table: str, column: str, change: Change) -> list[Row]:
    """Returns the descriptions in whose fields or subsections a changed one is."""
    numbers = {row["description"] for row in source.by(table, column).get(change.symbol)}
    return [row for number in numbers for row in source.by("descriptions", "description").get(number)]


def _tells(change: Change, depth: int) -> bool:
    return (not change.same_version and change.forward == REFUSED) or refused_by_version(change, depth + 1)


def _judged(change: Change) -> Break:
    devices = devices_of(change)
    saved = tuple(settings_since(devices, change.release))
    if saved:
        why = "a property that came with it may keep what was for older machine types"
    elif not change.certain:
        why = "a part of what differs is behind a test function, or is written by the device's own code"
    elif change.forward != REFUSED:
        why = "a subsection without a function that says when is sent always, and the older release refuses it"
    else:
        why = "other bytes stand under the same version, whatever the machine type"
    certainty = CERTAIN if change.certain and not saved else SUSPICION
    return Break(change, devices, saved, tuple(_afterwards(change, devices)), certainty, why)


def _afterwards(change: Change, devices: tuple[str, ...]) -> Iterator[str]:
    came = [line.removeprefix("+ subsection ").split(" if ")[0] for line in change.what if "+ subsection" in line]
    for name in (change.name, *came):
        for later in changes(name) if forms_of(name) else ():
            if (later.file, later.targets) != (change.file, change.targets) and name == change.name:
                continue
            if source.place(later.release) <= source.place(change.release):
                continue
            lines = [line for line in later.what if line.startswith(("version", "minimum", "needed"))]
            lines += [line for line in later.what if " if " in line and "subsection" not in line]
            yield from (f"{later.release}: {name}: {line}" for line in lines)
            if lines:
                yield from (f"{later.release}: {line}" for line in settings_since(devices, later.release))


def devices_of(change: Change) -> tuple[str, ...]:
    """Returns the device types whose class has a description; of a struct or subsection, those of its file."""
    of_symbol, of_file = _devices()
    return tuple(of_symbol.get((change.file, change.symbol), ()) or of_file.get(change.file, ()))


@cache
def _devices() -> tuple[dict[tuple[str, str], list[str]], dict[str, list[str]]]:
    described = {(row["file"], row["symbol"]) for row in source.rows("descriptions")}
    of_symbol: dict[tuple[str, str], list[str]] = {}
    of_file: dict[str, list[str]] = {}
    for row in source.rows("types"):
        for symbol in (row["vmsd"], row["virtio_vmsd"], row["cpu_vmsd"]):
            if (row["file"], symbol) in described:
                for known in (of_symbol.setdefault((row["file"], symbol), []), of_file.setdefault(row["file"], [])):
                    if row["name"] not in known:
                        known.append(row["name"])
    return of_symbol, of_file


def settings_since(devices: Iterable[str], release: str) -> list[str]:
    """Returns the entries of compatibility lists for some devices that came with a release, as text."""
    at = source.place(release)
    found = []
    for device in devices:
        known = properties_in(device, at - 1)  # what was there before came for another change
        rows = source.by("compat", "driver").get(device)
        before = {(row["property"], row["value"]) for row in source.holding(rows, at - 1)}
        found += [
            f"{row['list']} sets {device}.{row['property']}={row['value']}"
            for row in source.holding(rows, at)
            if (row["property"], row["value"]) not in before and row["property"] not in known
        ]
    return list(dict.fromkeys(found))


def commits(change: Change, clones: Sequence[Path], most: int = 10) -> list[dict[str, str]]:
    """Returns the commits between two releases that touch what a change names, as `git log -S` finds them.

    Parameters
    ----------
    clones : clones of QEMU; the first that has both releases is asked.

    Returns
    -------
    commit (40 digits), date and subject of each, oldest first.

    Raises
    ------
    CatalogError : not a clone.
    """
    from vmstate_tools.qemu_source.git import Repo

    for clone in clones:
        with Repo(clone) as repo:
            old, new = (_revision(repo, name) for name in (change.before, change.release))
            if not old or not new:
                continue
            paths = sorted({form.file for form in forms_of(change.name) if form.symbol == change.symbol})
            found: dict[str, dict[str, str]] = {}
            for word in _words(change)[:20]:
                log = repo.git("log", "--no-merges", "--reverse", "--format=%H%x09%cs%x09%s", f"-S{word}",
                               f"{old}..{new}", "--", *paths)  # fmt: skip
                for line in log.splitlines():
                    commit, date, subject = line.split("\t", 2)
                    found.setdefault(commit, {"commit": commit, "date": date, "subject": subject})
            return sorted(found.values(), key=lambda item: item["date"])[:most]
    return []


def _revision(repo: Repo, release: str) -> str:
    """Returns the revision of a release in a clone, "" where it has none."""
    return repo.tags.get(release, "") or repo.version_commits.get(release, "")


def _words(change: Change) -> list[str]:
    """Returns what to look for in the commits: names of fields and subsections, last member alone."""
    found = []
    for line in change.what:
        match = re.match(r"[-+] (?:subsection )?([\w.\[\]/-]+)", line)
        if match:
            word = re.split(r"[./]", re.sub(r"\[.*?\]", "", match[1]))[-1]
            if len(word) > 1 and word != "unused":
                found.append(word)
    return list(dict.fromkeys(found)) or [change.symbol]
