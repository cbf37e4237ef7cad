"""Work on many streams, spread over an executor: of one machine, or of a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vmstate_tools.errors import StreamError

R = TypeVar("R")
Work = Callable[[Sequence[str]], list[R]]

# Batches handed out and not taken back yet: enough for the workers of a cluster, and results do not pile up.
_AHEAD = 128
# How often a worker may die with a batch before its streams are tried one by one, and with one before it is given up.
_TRIES = 2


@dataclass
class _Batch(Generic[R]):
    items: Sequence[str]
    future: Future[list[R]]
    tries: int = 1


def spread(
    executor: Executor,
    work: Work[R],
    items: Sequence[str],
    size: int,
    lost: Callable[[str, StreamError], list[R]],
) -> Iterator[list[R]]:
    """What `work` makes of `items`, in their order, `size` of them at once; `work` must be picklable.

    Where a worker dies its batch is done again. A stream that takes its worker along each time is given up: `lost`
    makes its result. Any other exception passes.
    """
    todo = deque(items[i : i + size] for i in range(0, len(items), size))
    waiting: deque[_Batch[R]] = deque()
    with _Workers(executor, work) as workers:
        begin = [todo.popleft() for _ in range(min(len(todo), _AHEAD))]
        # Neighbours are alike, and what a worker made for one serves for the next: two workers begin far apart.
        half = (len(begin) + 1) // 2
        futures = {i: workers.submit(begin[i]) for i in sorted(range(len(begin)), key=lambda i: i % half)}
        waiting.extend(_Batch(batch, futures[i]) for i, batch in enumerate(begin))
        while todo or waiting:
            while todo and len(waiting) < _AHEAD:
                batch = todo.popleft()
                waiting.append(_Batch(batch, workers.submit(batch)))
            first = waiting.popleft()
            try:
                yield first.future.result()
                continue
            except Exception as err:
                if not _died(err):
                    raise
                workers.mend()
            if first.tries < _TRIES:
                waiting.appendleft(first)
                # A process pool is lost as a whole.
                for each in waiting:
                    if each.future.done() and _died(each.future.exception()):
                        each.future, each.tries = workers.submit(each.items), each.tries + 1
            elif len(first.items) > 1:
                waiting.extendleft(_Batch([item], workers.submit([item])) for item in reversed(first.items))
            else:
                yield workers.alone(first.items[0]) or lost(
                    first.items[0], StreamError("each worker that reads it dies", file=first.items[0])
                )


def _died(error: BaseException | None) -> bool:
    """Did a worker die of it, or the way to it break, rather than `work` raise it?"""
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, (BrokenExecutor, CancelledError, ConnectionError)) or module == "distributed"


class _Workers(Generic[R]):
    """The executor, or where it is a process pool and one of its processes died another like it."""

    def __init__(self, executor: Executor, work: Work[R]) -> None:
        self.executor = executor
        self.work = work
        self.own: ProcessPoolExecutor | None = None
        self.count = 0

    def submit(self, items: Sequence[str]) -> Future[list[R]]:
        self.count += 1  # so that a cluster does not take it for what it did before
        try:
            return self.executor.submit(_call, self.work, items, self.count)
        except BrokenExecutor as err:
            broken: Future[list[R]] = Future()
            broken.set_exception(err)
            return broken

    def alone(self, item: str) -> list[R] | None:
        """The result where no other item can be to blame; None where a worker died again."""
        try:
            if not isinstance(self.executor, ProcessPoolExecutor):
                return self.submit([item]).result()
            like: Any = self.executor
            with ProcessPoolExecutor(1, mp_context=like._mp_context) as own:
                return own.submit(_call, self.work, [item], 0).result()
        except Exception as err:
            if not _died(err):
                raise
            return None

    def mend(self) -> None:
        if not isinstance(self.executor, ProcessPoolExecutor) or not getattr(self.executor, "_broken", False):
            return
        like: Any = self.executor
        self.close()
        self.own = self.executor = ProcessPoolExecutor(like._max_workers, mp_context=like._mp_context)

    def close(self) -> None:
        if self.own is not None:
            self.own.shutdown(cancel_futures=True)

    def __enter__(self) -> _Workers[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _call(work: Work[R], items: Sequence[str], _count: int) -> list[R]:
    return work(items)
