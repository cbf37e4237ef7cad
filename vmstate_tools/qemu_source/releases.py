"""The releases that repositories of QEMU hold, and rows that hold from one release to another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmstate_tools.release import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vmstate_tools.qemu_source.git import Commit, Repo

#: The first release of the tables in `data/catalog`.
FIRST = (0, 10)


@dataclass
class ReleaseCommit:
    """A ReleaseCommit is a release, or a development state, and where it lies in a repository."""

    name: str
    repo: Repo
    revision: str
    commit: Commit
    kind: str

    @property
    def key(self) -> tuple[int, ...]:
        return numbers(self.name)


def releases(repos: Sequence[Repo]) -> list[ReleaseCommit]:
    """Returns every release found, oldest first.

    Behind them stands the newest development state (x.y.50) that is newer than any release with a history.

    A tag of an earlier repository wins over later ones; the commit that set VERSION serves where no tag does. The
    kind is "release" for x.y.0, or for the first of a series where x.y.0 is not at hand.
    """
    found: dict[str, tuple[Repo, str]] = {}
    for repo in repos:
        for name, revision in {**repo.version_commits, **repo.tags}.items():
            if name not in found or (repo is found[name][0]):
                found[name] = (repo, revision)
    names = sorted((name for name in found if numbers(name) >= FIRST), key=numbers)
    first = {numbers(name)[:2]: name for name in reversed(names)}
    known = [
        ReleaseCommit(name, repo, revision, repo.commit(revision), "release" if name in first.values() else "stable")
        for name in names
        for repo, revision in (found[name],)
    ]
    heads = []
    for repo in repos:
        for line in repo.main_lines:
            version = (repo.read(line, "VERSION") or "").strip()
            if re.fullmatch(r"\d+\.\d+\.50", version):
                heads.append(ReleaseCommit(version, repo, line, repo.commit(line), "development"))
    newest = max(heads, key=lambda h: h.key, default=None)
    if newest is not None and all(newest.key > r.key for r in known if r.commit.hash):
        known.append(newest)
    return sorted(known, key=lambda r: r.key)


def intervals(per_release: dict[str, Iterable[Any]], columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Returns rows with `since` and `until`: first and last release, in the given order, without a break between."""
    names = list(per_release)
    rows: list[tuple[Any, int, int]] = []
    open_: dict[Any, int] = {}
    for at, name in enumerate(names):
        here = set(per_release[name])
        for item in [i for i in open_ if i not in here]:
            rows.append((item, open_.pop(item), at - 1))
        for item in here:
            open_.setdefault(item, at)
    rows += [(item, start, len(names) - 1) for item, start in open_.items()]
    last = len(names) - 1
    rows.sort(key=lambda row: (row[0][0], row[1], row[0]))
    return [
        {
            **dict(zip(columns, item, strict=True)),
            "since": names[start],
            "until": "" if end == last else names[end],
        }
        for item, start, end in rows
    ]
