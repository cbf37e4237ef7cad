from __future__ import annotations

import subprocess
from pathlib import Path

from shell import run
from small_qemu import TREE, commit


def git(folder: Path, *args: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=folder, check=True)


def test_catalog_build_says_what_it_was_given(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("catalog", "build", "--qemu-git", str(tmp_path / "none"), "-o", str(out), code=2)
    result = run("catalog", "build", "--qemu-git", str(tmp_path), "-o", str(out), code=2)
    assert str(tmp_path) in result.stderr
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "empty")
    result = run("catalog", "build", "--qemu-git", str(tmp_path), "-o", str(out), code=2)
    assert "no release" in result.stderr
    assert not out.exists()


def test_catalog_source_writes_the_tables(tmp_path: Path) -> None:
    commit(tmp_path / "qemu", TREE)
    out = tmp_path / "out"
    run("catalog", "source", "--qemu-git", str(tmp_path / "qemu"), "--workers", "1", "-o", str(out))
    names = {"releases", "descriptions", "fields", "subsections", "registrations", "types", "properties"}
    assert {f"{name}.csv.zst" for name in names} < {file.name for file in out.iterdir()}
    result = run("catalog", "source", "--qemu-git", str(tmp_path), "-o", str(out), code=2)
    assert str(tmp_path) in result.stderr
