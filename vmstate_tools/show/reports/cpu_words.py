"""The CPU's sanity-check words that a set of streams carries, release by release."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import flags
from vmstate_tools.release import Release
from vmstate_tools.stream.cpu_words import CPU_WORDS

WORDS = [name for name in CPU_WORDS if name != "pvr"]
UNKNOWN = "not said"


@dataclass
class WordStep:
    """A WordStep has the CPU words that the streams of one release carry, and what changed since the step before.

    `added` and `removed` are names of flags; `other` names words that hold no flags and changed.
    """

    release: str
    words: dict[str, int | None]
    streams: int
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.added or self.removed or self.other)


@dataclass
class WordHistory:
    """A WordHistory has the words of one CPU model on one machine type, release by release."""

    model: str
    machine: str
    steps: list[WordStep]

    @property
    def label(self) -> str:
        return f"{self.model} on {self.machine}"

    @property
    def changed(self) -> bool:
        return any(step.changed for step in self.steps)

    @property
    def varying(self) -> list[str]:
        """Returns the names of the words that are not the same in all steps."""
        return [word for word in WORDS if len({step.words[word] for step in self.steps}) > 1]

    @property
    def constant(self) -> dict[str, int | None]:
        """Returns word → value, of the words that are the same in all steps."""
        return {word: self.steps[0].words[word] for word in WORDS if word not in self.varying}


def order(release: str) -> tuple[int, ...]:
    """Returns a key that sorts releases; a stream of no known release comes first."""
    return flags.release_key(release) if release != UNKNOWN else ()


def named(frame: pd.DataFrame, column: str, missing: str = UNKNOWN) -> pd.Series:
    """Returns a column as text, with `missing` in place of what is absent or empty."""
    if column not in frame:
        return pd.Series(missing, index=frame.index, dtype="str")
    text = frame[column].astype("str")
    absent = text.isna() | text.isin(["", "nan", "None"])
    if column == "release":  # a manifest may say anything
        absent |= ~text.map(_is_release).astype(bool)
    return text.mask(absent, missing)


def _is_release(name: object) -> bool:
    try:
        Release(str(name))
    except CatalogError:
        return False
    return True


def histories(cpu: pd.DataFrame) -> Iterable[WordHistory]:
    """Yields the history of each CPU model and machine type in `cpu`, a frame as `Collection.cpu`."""
    known = cpu[cpu["insns_flags"].notna()]
    keys = [named(known, "model").str.lower().rename("model"), named(known, "machine").rename("machine")]
    for (model, machine), group in known.groupby(keys, sort=True):
        steps: list[WordStep] = []
        releases = named(group, "release")
        for release in sorted(releases.unique(), key=order):
            for words, same in group[releases == release].groupby(WORDS, sort=False, dropna=False):
                values = dict(zip(WORDS, (None if pd.isna(v) else int(v) for v in words), strict=True))
                step = WordStep(release, values, int(same["file"].nunique()))
                if steps:
                    _compare(steps[-1], step)
                steps.append(step)
        yield WordHistory(str(model), str(machine), steps)


def _compare(before: WordStep, now: WordStep) -> None:
    """Notes in `now` what changed since `before`."""
    for difference in flags.diff(before.words, now.words).values():
        now.added += difference.added
        now.removed += difference.removed
    if before.words["nb_bats"] != now.words["nb_bats"]:
        now.other.append("nb_bats")
