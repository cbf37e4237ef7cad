"""One CPU family through the releases: its words, and the flags and commits that changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import flags
from vmstate_tools.facts.changes import Commit, causes, commits_of
from vmstate_tools.facts.cpu_section import stream_words
from vmstate_tools.facts.families import WORDS, family, models, words
from vmstate_tools.facts.machines import has_machine
from vmstate_tools.facts.tables import rows

if TYPE_CHECKING:
    import pandas as pd


class _Step(NamedTuple):
    """One family in one release, against the release before it."""

    release: str
    date: str
    family: str
    words: Mapping[str, int]
    added: list[str]
    removed: list[str]
    commits: list[Commit]


def _steps(family_name: str, accel: str | None, machine: str | None, stable: bool, sent: bool) -> list[_Step]:
    if sent and machine is None:
        raise CatalogError("what a stream carries depends on the machine type: name one")
    found: list[_Step] = []
    before: _Step | None = None
    for row in rows("catalog", "releases"):
        if stable or row["kind"] == "release":
            now = _words_in(row["release"], family_name, accel, machine, sent)
            before = None if now is None else _step(row["release"], row["date"], *now, before, accel, machine, sent)
            if before is not None:
                found.append(before)
    if not found:
        on = f" on machine {machine!r}" if sent else ""
        raise CatalogError(f"no release in the catalog has a ppc64 CPU family, model or alias {family_name!r}{on}")
    return found


def _words_in(
    release: str, family_name: str, accel: str | None, machine: str | None, sent: bool
) -> tuple[str, Mapping[str, int]] | None:
    """Returns the family's name in a release, and its words; None where the release lacks family or machine type."""
    try:
        name = family(family_name, release)
    except CatalogError:
        return None
    if not sent or machine is None:
        return name, words(name, release, accel, machine)._asdict()
    return (name, stream_words(release, machine, name, accel or "tcg")) if has_machine(machine, release) else None


def _step(
    release: str,
    date: str,
    name: str,
    now: Mapping[str, int],
    before: _Step | None,
    accel: str | None,
    machine: str | None,
    sent: bool,
) -> _Step:
    step = _Step(release, date, name, now, [], [], [])
    if before is None:
        return step
    new = flags.diff(before.words, now, release)
    gone = flags.diff(before.words, now, before.release)  # what went is named as it was called before
    # Where a model or alias stands for another family than before, its models moved.
    moved = [m.name for m in models(release) if m.family == name] if before.family != name else []
    by = causes(release, before.words, now, {name}, moved, accel, machine, sent)
    return step._replace(
        added=[n for difference in new.values() for n in difference.added],
        removed=[n for difference in gone.values() for n in difference.removed],
        commits=commits_of(by),
    )


def history_rows(
    family_name: str,
    accel: str | None = None,
    machine: str | None = None,
    stable: bool = False,
    sent: bool = False,
) -> list[dict[str, Any]]:
    """Returns `history` as a list of dicts: dates are text (2016-09-02), a word that no stream carries is None."""
    return [
        {
            "release": step.release,
            "date": step.date,
            "family": step.family,
            **{word: step.words.get(word) for word in WORDS},
            "added": step.added,
            "removed": step.removed,
            "commits": step.commits,
        }
        for step in _steps(family_name, accel, machine, stable, sent)
    ]


def history(
    family_name: str,
    accel: str | None = None,
    machine: str | None = None,
    stable: bool = False,
    sent: bool = False,
) -> pd.DataFrame:
    """Returns one family through the releases.

    Parameters
    ----------
    family_name : as a release spells it, in any case; a model or alias stands for its family.
    accel, machine : as for `words`; by default the words are those of the CPU's class.
    stable : list stable releases too, and the development state after the newest.
    sent : take the words that a stream of `machine` carries (`stream_words`), and only releases with that machine type.

    Returns
    -------
    A row per release that has the family: release, date, family, msr_mask, insns_flags and insns_flags2 (uint64;
    with `sent` UInt64, NA where the stream carries none), nb_BATs; against the row before, of words that both have,
    added and removed (lists of flag names) and commits (lists of {commit, date, subject}: see `causes`).

    Raises
    ------
    CatalogError : no release has such a family, model or alias; `sent` without `machine`.
    """
    import pandas as pd

    frame = pd.DataFrame(history_rows(family_name, accel, machine, stable, sent))
    frame["date"] = [pd.Timestamp(date) for date in frame["date"]]
    return frame.astype(dict.fromkeys(flags.WORDS, "UInt64" if sent else "uint64"))
