"""One revision of QEMU's source as a set of files, out of a git repository without a work tree."""

from __future__ import annotations

import re
from functools import cached_property
from posixpath import dirname, join, normpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmstate_tools.qemu_source.git import Repo

#: Folders with nothing that a system emulator is made of, or nothing that concerns a stream.
_SKIPPED = re.compile(
    r"(?:tests|disas|roms|pc-bios|linux-user|bsd-user|darwin-user|libdecnumber|contrib|docs|subprojects|tcg"
    r"|scripts|po|plugins|qga|fsdev|storage-daemon|\.[^/]*)/"
)
_WANTED = re.compile(r".*\.(?:c|h|inc|rs|json)\Z")


class Revision:
    """A Revision has the files of one commit: their paths, the ids of their blobs, and their text on demand."""

    def __init__(self, repo: Repo, commit: str) -> None:
        self.repo = repo
        self.commit = commit

    @cached_property
    def blobs(self) -> dict[str, str]:
        """Returns path → id of the blob, for the files a system emulator is made of."""
        every = self.repo.blobs(self.commit, [])
        return {p: b for p, b in every.items() if _WANTED.match(p) and not _SKIPPED.match(p)}

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """Returns base name of a file → paths that end in it."""
        found: dict[str, list[str]] = {}
        for path in self.blobs:
            found.setdefault(path.rsplit("/", 1)[-1], []).append(path)
        return found

    def text(self, path: str) -> str:
        """Returns the text of a file, bytes as Latin-1."""
        return (self.repo.content(self.blobs[path]) or b"").decode("latin-1")

    def include(self, name: str, by: str, target: str) -> str | None:
        """Finds the file that `#include` of `name` in the file `by` means; None where it is generated or the system's.

        `target` is the folder of target/ that the file is compiled for.
        """
        if name in ("config-host.h", "config-target.h", "trace.h"):
            return None
        folders = (dirname(by), "include", f"target/{target}", f"target-{target}", "", "include/standard-headers",
                   "linux-headers", "include/fpu", "fpu", "hw", "ui", "audio")  # fmt: skip
        for folder in folders:
            path = normpath(join(folder, name))
            if path in self.blobs:
                return path
        return None
