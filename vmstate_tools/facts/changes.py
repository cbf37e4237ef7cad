"""Every fact of the catalog that changed, with the commit that changed it: `data/catalog/changes.csv`."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypedDict

from vmstate_tools.facts.tables import Row, rows

if TYPE_CHECKING:
    import pandas as pd

_ALL_ONES = 0xFFFF_FFFF_FFFF_FFFF


class Commit(TypedDict):
    """A Commit has all 40 digits of its hash, its date (`2016-06-22`) and subject."""

    commit: str
    date: str
    subject: str


class Cause(Commit):
    """A commit that changed `bits` of `word`; for a model that moved to another family all bits, and `word` is ""."""

    word: str
    bits: int


def changes(item: str | None = None, kind: str | None = None) -> pd.DataFrame:
    """Returns every fact that changed and the commit that changed it.

    Parameters
    ----------
    item : a family, flag, model, alias, property or field; None for all.
    kind : family, flag, model, alias, adjustment, mask, gate or field; None for all.

    Returns
    -------
    frame with release (the first that has the change), commit (40 digits, "" where none could be found), date,
    subject, kind, item, word, before, after.
    """
    import pandas as pd

    found = [r for r in rows("catalog", "changes") if item in (None, r["item"]) and kind in (None, r["kind"])]
    columns = ["release", "commit", "date", "subject", "kind", "item", "word", "before", "after"]
    frame = pd.DataFrame(found, columns=columns)
    frame["date"] = pd.to_datetime(frame["date"])
    return frame


@cache
def _with_commit() -> dict[str, list[Row]]:
    """Returns the changes whose commit is known, by release."""
    found: dict[str, list[Row]] = {}
    for row in rows("catalog", "changes"):
        if row["commit"]:
            found.setdefault(row["release"], []).append(row)
    return found


@dataclass(frozen=True)
class _Scope:
    """Which changes count: see the parameters of `causes`. `moved` is in lower case."""

    before: Mapping[str, int]
    after: Mapping[str, int]
    families: Container[str]
    moved: Container[str]
    accel: str | None
    machine: str | None
    sent: bool

    def differing(self, word: str) -> int:
        """Returns the bits of a word that differ; all where only one side has the word."""
        if word in self.before and word in self.after:
            return self.before[word] ^ self.after[word]
        return _ALL_ONES if word in self.before or word in self.after else 0

    def effect(self, row: Row) -> tuple[str, int]:
        """Returns the word that a change is about, "" for all of them, and the bits of it that the change touched."""
        kind, item = row["kind"], row["item"]
        if kind == "family" and item in self.families:
            return row["word"], _flipped(row)
        if (kind == "adjustment" and self._adjusts(item)) or (kind == "mask" and self.sent):
            return row["word"], _mask_flipped(row)
        if kind == "model" and item.lower() in self.moved:
            return "", _ALL_ONES if _moved(row) else 0
        if kind == "field" and self.sent:
            word = item.removeprefix("cpu:").removeprefix("env.").removeprefix("mig_")
            return word, _ALL_ONES if (word in self.before) != (word in self.after) else 0
        return "", 0

    def _adjusts(self, item: str) -> bool:
        """Tells whether an adjustment applies: it is made for TCG, or by a pseries machine."""
        pseries = self.machine is not None and self.machine.startswith("pseries")
        return (item == "tcg and" and self.accel == "tcg") or (item == "pseries and" and pseries)


def _flipped(row: Row) -> int:
    return int(row["before"], 16) ^ int(row["after"], 16) if row["before"] and row["after"] else 0


def _mask_flipped(row: Row) -> int:
    """Returns the bits that a mask treats otherwise than before; no mask at all leaves a word as it is."""
    neutral = 0 if row["item"] == "or" else _ALL_ONES
    was, now = (int(row[side].split()[0], 16) if row[side] else neutral for side in ("before", "after"))
    return was ^ now


def _moved(row: Row) -> bool:
    """Tells whether a model is of another family than before; its family stands first in the cell."""
    return bool(row["before"] and row["after"]) and row["before"].split()[0] != row["after"].split()[0]


def causes(
    release: str,
    before: Mapping[str, int],
    after: Mapping[str, int],
    families: Container[str],
    moved: Iterable[str] = (),
    accel: str | None = None,
    machine: str | None = None,
    sent: bool = False,
) -> list[Cause]:
    """Returns the commits behind a difference between a release and the one before it: each changed a bit of it.

    Parameters
    ----------
    before, after : the words, by name; a word may be absent.
    families, moved : whose changes count: of these families, and of these models if they moved to another family.
    accel, machine : as for `words`: whose masks count.
    sent : the words are those of streams: what `cpu_pre_save` does to them counts too, and
        whether the section has them.

    Returns
    -------
    the causes, oldest first; a commit that changed two words is there twice.
    """
    scope = _Scope(before, after, families, {name.lower() for name in moved}, accel, machine, sent)
    found: list[Cause] = []
    for row in _with_commit().get(release, ()):
        word, bits = scope.effect(row)
        if word:
            bits &= scope.differing(word)
        if bits:
            found.append(
                {"commit": row["commit"], "date": row["date"], "subject": row["subject"], "word": word, "bits": bits}
            )
    return found


def commits_of(found: Iterable[Cause]) -> list[Commit]:
    """Returns each commit behind some causes once."""
    return list({c["commit"]: Commit(commit=c["commit"], date=c["date"], subject=c["subject"]) for c in found}.values())
