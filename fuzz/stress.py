"""Read many mutated streams under limits of time and memory: `python -m fuzz.stress --count 100000`."""

from __future__ import annotations

import functools
import gzip
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import strategies
import zstandard
from exercise import exercise
from tqdm.auto import tqdm

SECONDS = 1.0  # of the processor's time
MIB = 512


@dataclass
class Result:
    """What became of a range of seeds."""

    inputs: int = 0
    read: int = 0  # without any error
    slowest: tuple[float, int] = (0.0, -1)  # seconds, seed
    largest: tuple[int, int] = (0, -1)  # bytes of memory beyond what the process had, seed
    found: list[tuple[int, str]] = field(default_factory=list)  # seed, what went wrong


class TooSlowError(Exception):
    """The limit of time is over."""


def source(seed: int) -> tuple[bytes | list[bytes], bool]:
    """The input of this number, and whether it is opened with `partial`."""
    rng = random.Random(seed)
    if seed % 40 == 13:
        return strategies.connections(rng), bool(seed & 2)
    samples = strategies.samples()
    data = rng.choice(samples) if seed % 8 == 0 and samples else strategies.build(rng)
    if seed % 50 != 1:
        data = strategies.mutate(rng, data)
    if seed % 40 == 3:
        pack: Callable[[bytes], bytes] = rng.choice([gzip.compress, zstandard.compress])
        data = strategies.mutate(rng, pack(data))
    return data, bool(seed & 1)


def _status(name: str) -> int:
    """A figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _limit() -> None:
    """Refuse memory beyond what the process has now and `MIB` more."""
    exercise(strategies.build(random.Random(0)))  # imports what is imported late
    limit = _status("VmSize") + (MIB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def stop(*_: Any) -> None:
        raise TooSlowError

    signal.signal(signal.SIGALRM, stop)


def run(first: int, count: int, save: Path | None = None) -> Result:
    """Read the inputs `first` … `first + count - 1`."""
    result = Result()
    for seed in range(first, first + count):
        data, partial = source(seed)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        before = _status("VmRSS")
        signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)
        begin = time.process_time()
        problem = ""
        try:
            result.read += not exercise(data, partial=partial)
        except Exception:
            problem = traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        spent, grown = time.process_time() - begin, _status("VmHWM") - before
        if not problem and spent > SECONDS:
            problem = f"{spent:.2f} s"
        if not problem and grown > MIB << 20:
            problem = f"{grown >> 20} MiB"
        result.inputs += 1
        result.slowest = max(result.slowest, (spent, seed))
        result.largest = max(result.largest, (grown, seed))
        if problem:
            result.found.append((seed, problem))
            if save is not None:
                for number, part in enumerate(data if isinstance(data, list) else [data]):
                    (save / f"{seed}.{number}.mig").write_bytes(part)
    return result


def _ranges(first: int, count: int, step: int = 500) -> Iterator[tuple[int, int]]:
    for at in range(first, first + count, step):
        yield at, min(step, first + count - at)


@click.command()
@click.option("--count", default=100_000, help="How many inputs.")
@click.option("--first", default=0, help="The number of the first: the same numbers make the same inputs.")
@click.option("--workers", default=1, help="Processes.")
@click.option("--save", type=click.Path(path_type=Path, file_okay=False), help="Keep what goes wrong in this folder.")
def main(count: int, first: int, workers: int, save: Path | None) -> None:
    """Mutated streams, each read as a whole: any error but StreamError, 1 s or 512 MiB is a finding."""
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    total = Result()
    with ProcessPoolExecutor(workers, initializer=_limit) as pool, tqdm(total=count, unit="input") as bar:
        ranges = list(_ranges(first, count))
        for part in pool.map(functools.partial(run, save=save), *zip(*ranges, strict=True)):
            total.inputs += part.inputs
            total.read += part.read
            total.slowest = max(total.slowest, part.slowest)
            total.largest = max(total.largest, part.largest)
            total.found += part.found
            bar.update(part.inputs)
    for last, seeds in Counter(text.splitlines()[-1] for _, text in total.found).most_common():
        which = [seed for seed, text in total.found if text.splitlines()[-1] == last]
        click.echo(f"{seeds} x {last}: inputs {which[:5]}")
    if total.found:
        click.echo(total.found[0][1])
    click.echo(
        f"{total.inputs} inputs, {total.read} without error, {len(total.found)} findings; "
        f"slowest {total.slowest[0]:.2f} s (input {total.slowest[1]}), "
        f"most memory {total.largest[0] / (1 << 20):.0f} MiB (input {total.largest[1]})"
    )
    sys.exit(bool(total.found))


if __name__ == "__main__":
    main()
