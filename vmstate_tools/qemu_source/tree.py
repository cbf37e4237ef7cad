"""A released source tree, unpacked or as a tarball, read as a repository of one commit."""

from __future__ import annotations

import lzma
import re
import subprocess
import tarfile
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.git import Commit, Repo

if TYPE_CHECKING:
    from collections.abc import Iterator

#: All that is read of a release (`changes._FILES` names the files).
_WANTED = re.compile(r"VERSION|(?:target[-/]ppc|hw/ppc)/.*\.(?:c|h|inc)|hw/spapr\.c")

_RELEASE = re.compile(r"\d+\.\d+\.[0-4]?\d(?:\.\d+)?")  # from x.y.50 on it is development


class SourceTree(Repo):
    """What `Repo` is, over a tree without history: its commit has no hash, and the day VERSION was written.

    Raises
    ------
    CatalogError : no release of QEMU: no VERSION of one.
    """

    def __init__(self, path: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vmstate-source-")
        copy = Path(self._folder.name)
        try:
            written = None
            for name, data, when in _files(path):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (copy / name).write_bytes(data)
                written = when if name == "VERSION" else written
            version = (copy / "VERSION").read_text().strip() if written is not None else ""
            if written is None or not _RELEASE.fullmatch(version):
                raise CatalogError(f"{path}: not the source of a release of QEMU (VERSION: {version or 'none'})")
            for args in (
                ("init", "-q"),
                ("add", "-A", "-f"),
                ("-c", "user.name=-", "-c", "user.email=-", "commit", "-q", "--no-gpg-sign", "-m", version),
                ("tag", f"v{version}"),
            ):
                subprocess.run(["git", "-C", str(copy), *args], check=True, capture_output=True)
        except BaseException:
            self._folder.cleanup()
            raise
        self.version = version
        self.date = datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d")
        super().__init__(copy)

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_folder": None}  # the process that made it removes it

    def commit(self, revision: str) -> Commit:
        return Commit("", self.date, "")

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def _files(path: Path) -> Iterator[tuple[str, bytes, float]]:
    """Yields (name below the tree's root, content, time of its last change) of the files that are read."""
    if path.is_dir():
        for name in ("VERSION", "hw/spapr.c"):
            if (path / name).is_file():
                yield name, (path / name).read_bytes(), (path / name).stat().st_mtime
        for folder in ("target/ppc", "target-ppc", "hw/ppc"):
            for file in sorted((path / folder).rglob("*")):
                name = file.relative_to(path).as_posix()
                if file.is_file() and _WANTED.fullmatch(name):
                    yield name, file.read_bytes(), file.stat().st_mtime
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.removeprefix("./").partition("/")[2]
                content = archive.extractfile(member) if member.isfile() and _WANTED.fullmatch(name) else None
                if content is not None and ".." not in name.split("/"):
                    yield name, content.read(), member.mtime
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise CatalogError(f"{path}: {error}") from None
