"""The fuzzer finds what it is there to find, and gives it back."""

from __future__ import annotations

import faulthandler
import importlib.util
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from fuzz import actions, inputs, stress  # noqa: E402


@pytest.mark.parametrize("kind", inputs.SHARES)
def test_a_number_makes_the_same_input_again(kind: str, tmp_path: Path) -> None:
    made = [inputs.make(number, kind) for number in range(5)]
    assert made == [inputs.make(number, kind) for number in range(5)]
    assert len({tuple(given.parts.values()) for given in made}) > 1
    made[0].save(tmp_path / "input.json")
    assert inputs.Input.load(tmp_path / "input.json") == made[0]


def test_every_kind_has_its_share() -> None:
    kinds = [inputs.make(number).kind for number in range(100)]
    assert {kind: kinds.count(kind) for kind in inputs.SHARES} == inputs.SHARES


def planted(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, str]]:
    """What the runner finds in five inputs of which number 3 does this."""

    def steps(given: inputs.Input, folder: Path):
        yield "step", work if given.number == 3 else lambda: None

    monkeypatch.setattr(actions, "steps", steps)
    monkeypatch.setattr(stress, "SECONDS", 0.2)
    monkeypatch.setattr(stress, "MIB", 32)
    found, seen = [], 0
    for tallies, number in stress.stress(range(5), "stream", workers=1):
        seen += number
        found += [finding for tally in tallies.values() for finding in tally.found]
    assert seen == 5
    return found


def _busy() -> None:
    while True:
        pass


def _slow() -> None:
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass


def _caught() -> None:
    while True:
        try:
            _busy()
        except Exception:
            continue


def _large() -> None:
    memory = mmap.mmap(-1, 60 << 20)
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1


@pytest.mark.parametrize(
    ("work", "found"),
    [
        (lambda: {}["x"], "KeyError: 'x'"),
        (_slow, "TooSlow: 0.3"),
        (_busy, "TooSlow: over 0.8"),
        (_caught, "Ended: SIGXCPU"),
        (lambda: (faulthandler.disable(), os.abort()), "Ended: SIGABRT"),
        (_large, "TooMuch: "),
        (lambda: bytearray(8 << 30), "MemoryError"),
    ],
    ids=["error", "slow", "without end", "that nothing stops", "crash", "memory", "too much memory"],
)
def test_what_is_planted_is_found(work: Callable[[], Any], found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = planted(work, monkeypatch)
    assert {number for number, _, _ in findings} == {3}
    assert any(found in text.strip().splitlines()[-1] for _, _, text in findings)


def test_a_finding_is_kept_and_read_again(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mig"
    bad.write_bytes(b"QEVM\0\0\0\3")
    command = [sys.executable, "-m", "fuzz.stress", "--replay", str(bad)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "stream, 8 bytes, 0 findings" in done.stdout


def _guided(target: str, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzz.guided", target, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("target", ["walk", "containers"])
def test_guided_targets_run(target: str, tmp_path: Path) -> None:
    seeds = [sys.executable, "-m", "fuzz.seeds", target, str(tmp_path / "corpus"), "--count", "3"]
    subprocess.run(seeds, cwd=ROOT, check=True)
    done = _guided(target, str(tmp_path / "corpus"), "-runs=50", "-max_len=65536", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "DONE" in done.stderr
