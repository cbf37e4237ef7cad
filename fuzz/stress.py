"""Reads many mutated inputs under limits of time and memory: `python -m fuzz.stress --count 100000`.

A batch of inputs is read in a forked child, which the kernel stops where Python cannot: what it is stopped at is a finding too.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import multiprocessing.connection
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from tqdm.auto import tqdm

from fuzz import actions
from fuzz.inputs import SHARES, Input, make

SECONDS = 1.0  # of the processor's time, for each step and each started MiB of the input
MIB = 512  # of memory beyond what the process had, likewise
HARD = 20  # times the time limit, after which the child is ended


@dataclass
class Tally:
    """A tally is what became of the inputs of one kind."""

    inputs: int = 0
    read: int = 0  # without any error
    slowest: tuple[float, int] = (0.0, -1)  # seconds of the slowest step, number of the input
    largest: tuple[int, int] = (0, -1)  # bytes of memory, number of the input
    found: list[tuple[int, str, str]] = field(default_factory=list)  # number, step, what went wrong

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.read += other.read
        self.slowest = max(self.slowest, other.slowest)
        self.largest = max(self.largest, other.largest)
        self.found += other.found


class TooSlowError(Exception):
    """A step used more of the processor's time than it may."""


def _status(name: str) -> int:
    """Returns a figure of /proc/self/status in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    raise KeyError(name)


def _allow(seconds: float) -> None:
    """Lets the process run for so many more seconds of the processor's time, until SIGXCPU ends it."""
    used = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 2, hard))


def read(given: Input, folder: Path) -> Tally:
    """Does everything with one input; empties `folder` first."""
    for path in folder.iterdir():
        path.unlink() if path.is_file() or path.is_symlink() else shutil.rmtree(path)
    mibs = max(1, -(-given.size // (1 << 20)))
    tally = Tally(inputs=1)
    whole = True
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # VmHWM begins anew
    before = _status("VmRSS")
    step, begin = "", 0.0
    try:
        for step, work in actions.steps(given, folder):
            _allow(HARD * SECONDS * mibs)
            signal.setitimer(signal.ITIMER_PROF, 4 * SECONDS * mibs)
            begin = time.process_time()
            whole &= actions.run(work)
            spent = time.process_time() - begin
            tally.slowest = max(tally.slowest, (spent, given.number))
            if spent > SECONDS * mibs:
                tally.found.append((given.number, step, f"TooSlow: {spent:.2f} s for {given.size} bytes"))
    except TooSlowError:
        spent = time.process_time() - begin
        tally.found.append((given.number, step, f"TooSlow: over {spent:.1f} s for {given.size} bytes"))
        tally.slowest = max(tally.slowest, (spent, given.number))
    except (Exception, SystemExit):
        tally.found.append((given.number, step, traceback.format_exc()))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = _status("VmHWM") - before
    tally.largest = (grown, given.number)
    if grown > (MIB << 20) * mibs:
        tally.found.append((given.number, "memory", f"TooMuch: {grown >> 20} MiB for {given.size} bytes"))
    tally.read = int(whole and not tally.found)
    return tally


def _child(numbers: Sequence[int], kind: str | None, mark: mmap.mmap, answer: Any, folder: Path) -> None:
    """Reads these inputs; writes the number of each where the parent sees it, before it is read."""

    def stop(*_: Any) -> None:
        raise TooSlowError

    signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _status("VmSize") + (4 * MIB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.stdin = open(os.devnull)  # noqa: SIM115
    os.chdir(folder)
    tallies: dict[str, Tally] = {}
    for number in numbers:
        mark[:8] = number.to_bytes(8, "little")
        given = make(number, kind)
        tallies.setdefault(given.kind, Tally()).add(read(given, folder))
    answer.send(tallies)


@dataclass
class _Batch:
    numbers: list[int]
    process: Any
    answers: Any
    mark: mmap.mmap
    folder: Path


def _start(numbers: Sequence[int], kind: str | None) -> _Batch:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    mark = mmap.mmap(-1, 8)
    mark[:8] = numbers[0].to_bytes(8, "little")
    folder = Path(tempfile.mkdtemp(prefix="vmstate-fuzz-"))
    process = context.Process(target=_child, args=(numbers, kind, mark, sender, folder))
    process.start()
    sender.close()
    return _Batch(list(numbers), process, receiver, mark, folder)


def _finish(batch: _Batch, kind: str | None) -> tuple[dict[str, Tally], list[int]]:
    """Returns what the child found, and the numbers that are left to read where the kernel ended it before the last."""
    try:
        tallies = batch.answers.recv()
        left: list[int] = []
    except EOFError:
        batch.process.join()
        number = int.from_bytes(batch.mark[:8], "little")
        at = batch.numbers.index(number)
        code = batch.process.exitcode
        name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        ended = Tally(inputs=1, found=[(number, "child", f"Ended: {name}")])
        # What came before the end is read again: its figures went with the child.
        tallies, left = {make(number, kind).kind: ended}, batch.numbers[:at] + batch.numbers[at + 1 :]
    batch.process.join()
    shutil.rmtree(batch.folder, ignore_errors=True)
    return tallies, left


def stress(
    numbers: Sequence[int], kind: str | None, workers: int, step: int = 200
) -> Iterator[tuple[dict[str, Tally], int]]:
    """Reads these inputs in forked children; yields what was found, batch by batch, and how many inputs that were."""
    waiting = [list(numbers[at : at + step]) for at in range(0, len(numbers), step)][::-1]
    running: list[_Batch] = []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(_start(waiting.pop(), kind))
        ready = multiprocessing.connection.wait([batch.answers for batch in running])
        for batch in [batch for batch in running if batch.answers in ready]:
            running.remove(batch)
            tallies, left = _finish(batch, kind)
            if left:
                waiting.append(left)
            yield tallies, sum(tally.inputs for tally in tallies.values())


def _report(totals: dict[str, Tally]) -> str:
    head = f"{'kind':<14}{'inputs':>8}{'read':>8}{'findings':>10}{'slowest step':>14}{'most memory':>13}"
    lines = [head]
    for kind, tally in [*totals.items(), ("all", _sum(totals.values()))]:
        lines.append(
            f"{kind:<14}{tally.inputs:>8}{tally.read:>8}{len(tally.found):>10}{tally.slowest[0]:>12.2f} s"
            f"{tally.largest[0] / (1 << 20):>9.0f} MiB"
        )
    return "\n".join(lines)


def _sum(tallies: Any) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:200]


def _replay(path: Path) -> int:
    """Reads one input again, in this process; returns how often something went wrong."""
    given = Input.load(path)
    with tempfile.TemporaryDirectory(prefix="vmstate-fuzz-") as name:
        os.chdir(name)
        signal.signal(signal.SIGPROF, lambda *_: (_ for _ in ()).throw(TooSlowError))
        tally = read(given, Path(name))
        os.chdir("/")
    for _, step, text in tally.found:
        click.echo(f"{given.kind} {given.number}, {step}:\n{text}")
    click.echo(
        f"{path}: {given.kind}, {given.size} bytes, {len(tally.found)} findings, slowest step {tally.slowest[0]:.2f} s"
    )
    return len(tally.found)


@click.command()
@click.option("--count", default=100_000, show_default=True, help="How many inputs.")
@click.option("--first", default=0, help="The number of the first: the same numbers make the same inputs.")
@click.option("--kind", type=click.Choice(list(SHARES)), help="Only inputs of this kind.")
@click.option("--workers", default=1, show_default=True, help="Processes.")
@click.option("--save", type=click.Path(path_type=Path, file_okay=False), help="Keep what goes wrong in this folder.")
@click.option(
    "--json", "out", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures into this file."
)
@click.option(
    "--replay", "files", type=click.Path(path_type=Path, exists=True), multiple=True, help="Read this input again."
)
def main(
    count: int, first: int, kind: str | None, workers: int, save: Path | None, out: Path | None, files: tuple[Path, ...]
) -> None:
    """Reads mutated inputs of every kind, each in every way: any error but the package's own, more than 1 s of the
    processor in one step, or more than 512 MiB, for each started MiB, is a finding."""
    warnings.simplefilter("ignore")
    if files:
        sys.exit(bool(sum(_replay(path.resolve()) for path in files)))
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vmstate-fuzz-") as name:
        here = Path.cwd()
        os.chdir(name)
        actions.warm_up([make(number, some) for some in SHARES for number in range(3)], Path(name))
        os.chdir(here)
    totals: dict[str, Tally] = {some: Tally() for some in ([kind] if kind else SHARES)}
    began = time.monotonic()
    with tqdm(total=count, unit="input", disable=None) as bar:
        for tallies, inputs in stress(range(first, first + count), kind, workers):
            for some, tally in tallies.items():
                totals[some].add(tally)
                for number, _, text in tally.found if save is not None else ():
                    make(number, kind).save(save / f"{some.replace(' ', '-')}-{number}.json", text)
            if out is not None:
                out.write_text(json.dumps({some: vars(tally) for some, tally in totals.items()}, indent=1) + "\n")
            bar.update(inputs)
    everything = _sum(totals.values())
    for last, many in Counter((step, _last_line(text)) for _, step, text in everything.found).most_common():
        which = [number for number, step, text in everything.found if (step, _last_line(text)) == last]
        click.echo(f"{many} x {last[0]}: {last[1]}: inputs {which[:5]}")
    if everything.found:
        click.echo(everything.found[0][2])
    click.echo(_report(totals))
    click.echo(f"{everything.inputs} inputs in {time.monotonic() - began:.0f} s, {len(everything.found)} findings")
    sys.exit(bool(everything.found))


if __name__ == "__main__":
    main()
