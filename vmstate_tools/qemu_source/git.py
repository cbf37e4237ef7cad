"""Files and commits out of git repositories, by plumbing alone: no work tree is touched."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.release import Release

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TAG = re.compile(r"v(\d+\.\d+(?:\.\d+)*)\Z")


@dataclass(frozen=True)
class Commit:
    """A Commit has all 40 digits of its hash, its date (`2016-06-22`) and the first line of its message."""

    hash: str
    date: str
    subject: str


class Repo:
    """A Repo is one git repository, bare or not.

    Raises
    ------
    CatalogError : not a git repository, or git fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batch: subprocess.Popen[bytes] | None = None
        self.git("rev-parse", "--git-dir")

    def __enter__(self) -> Repo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        # The running git does not cross to another process; one is started there at need.
        return {**self.__dict__, "_batch": None}

    def git(self, *args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *args],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise CatalogError(f"git {' '.join(args)} in {self.path}: {done.stderr.strip()}")
        return done.stdout

    def read(self, revision: str, path: str) -> str | None:
        """Returns the text of a file at a revision, None where it does not exist; bytes as Latin-1."""
        content = self.content(f"{revision}:{path}")
        return None if content is None else content.decode("latin-1")

    def content(self, name: str) -> bytes | None:
        """Returns the bytes of a blob, by its id or as REVISION:PATH; None where there is none."""
        if self._batch is None:
            self._batch = subprocess.Popen(
                ["git", "-C", str(self.path), "cat-file", "--batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self._batch.stdin is not None and self._batch.stdout is not None
        self._batch.stdin.write(name.encode() + b"\n")
        self._batch.stdin.flush()
        head = self._batch.stdout.readline().split()
        if len(head) != 3 or head[-1] == b"missing":
            return None
        body = self._batch.stdout.read(int(head[2]) + 1)[:-1]
        return body if head[1] == b"blob" else None

    def blobs(self, revision: str, paths: Iterable[str]) -> dict[str, str]:
        """Returns path → blob hash, for the paths (folders are listed through) that exist at a revision."""
        lines = self.git("ls-tree", "-r", revision, "--", *paths).splitlines()
        return {path: meta.split()[2] for meta, path in (line.split("\t", 1) for line in lines)}

    def commit(self, revision: str) -> Commit:
        full, date, subject = self.git("log", "-1", "--format=%H%x00%cs%x00%s", revision).strip().split("\0")
        return Commit(full, date, subject)

    @cached_property
    def tags(self) -> dict[str, str]:
        """Returns release → revision, from tags named like v2.6.0; release candidates are left out."""
        found = ((m[1], t) for t in self.git("tag").splitlines() if (m := _TAG.match(t)))
        return {str(Release(release)): f"refs/tags/{tag}" for release, tag in found}

    @cached_property
    def version_commits(self) -> dict[str, str]:
        """Returns release → the commit that set the file VERSION to it, on the first-parent line of each branch head.

        For repositories without tags: a release is tagged on the commit that sets VERSION.
        """
        found: dict[str, str] = {}
        for commit in self.git("log", "--first-parent", "--format=%H", *self.main_lines, "--", "VERSION").split():
            version = (self.read(commit, "VERSION") or "").strip()
            if re.fullmatch(r"\d+\.\d+\.\d+", version) and Release(version).numbers[2] < 50:
                found.setdefault(version, commit)
        return found

    @cached_property
    def main_lines(self) -> list[str]:
        names = self.git("for-each-ref", "--format=%(refname)", "refs/heads/master", "refs/heads/main").split()
        return names or ["HEAD"]

    def close(self) -> None:
        if self._batch is not None:
            assert self._batch.stdin is not None and self._batch.stdout is not None
            self._batch.stdin.close()
            self._batch.stdout.close()
            self._batch.wait()
            self._batch = None
