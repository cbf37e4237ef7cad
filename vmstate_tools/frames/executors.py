"""Work on many streams that is spread over an executor: of one machine, or of a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vmstate_tools.errors import StreamError

R = TypeVar("R")
Work = Callable[[Sequence[str]], list[R]]
Lost = Callable[[str, Exception], list[R]]

# Batches handed out and not taken back yet: enough for the workers of a cluster, and results do not pile up.
_AHEAD = 128
# How often a worker may die with a batch before its streams are tried one by one, and with one before it is given up.
_TRIES = 2


@dataclass
class _Batch(Generic[R]):
    """Items that were handed out together, and how often they were."""

    items: Sequence[str]
    future: Future[list[R]]
    tries: int = 1


def spread(
    executor: Executor,
    work: Work[R],
    items: Sequence[str],
    size: int,
    lost: Lost[R],
) -> Iterator[list[R]]:
    """Yields what `work` makes of `items`, in their order, `size` of them at once; `work` must be picklable.

    Where a worker dies its batch is done again. An item that takes its worker along each time is given up, and so is
    one for which `work` raises: `lost` makes its result out of the exception. It takes no other stream along.
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
                raised = None if _died(err) else err
            if raised is not None:
                if len(first.items) > 1:
                    waiting.extendleft(_Batch([item], workers.submit([item])) for item in reversed(first.items))
                else:
                    yield lost(first.items[0], raised)
                continue
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
                yield workers.alone(first.items[0], lost)


def _died(error: BaseException | None) -> bool:
    """Returns True where a worker died, or the way to it broke, rather than `work` raised."""
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, (BrokenExecutor, CancelledError, ConnectionError)) or module == "distributed"


class _Workers(Generic[R]):
    """An executor; where it is a process pool and one of its processes died, another pool like it takes its place."""

    def __init__(self, executor: Executor, work: Work[R]) -> None:
        self.executor = executor
        self.work = work
        self.own: ProcessPoolExecutor | None = None
        self.count = 0

    def submit(self, items: Sequence[str]) -> Future[list[R]]:
        """Hands items out; where the executor is broken, the future says so."""
        self.count += 1  # so that a cluster does not take it for what it did before
        try:
            return self.executor.submit(_call, self.work, items, self.count)
        except BrokenExecutor as err:
            broken: Future[list[R]] = Future()
            broken.set_exception(err)
            return broken

    def alone(self, item: str, lost: Lost[R]) -> list[R]:
        """Returns the result where no other item can be to blame; that of `lost` where a worker died again."""
        try:
            if not isinstance(self.executor, ProcessPoolExecutor):
                return self.submit([item]).result()
            like: Any = self.executor
            with ProcessPoolExecutor(1, mp_context=like._mp_context) as own:
                return own.submit(_call, self.work, [item], 0).result()
        except Exception as err:
            return lost(item, StreamError("each worker that reads it dies", file=item) if _died(err) else err)

    def mend(self) -> None:
        """Puts a pool like it in the place of a process pool that one of its processes broke."""
        if not isinstance(self.executor, ProcessPoolExecutor) or not getattr(self.executor, "_broken", False):
            return
        like: Any = self.executor
        self.close()
        self.own = self.executor = ProcessPoolExecutor(like._max_workers, mp_context=like._mp_context)

    def close(self) -> None:
        """Ends the pool that took the executor's place; the executor itself is its owner's."""
        if self.own is not None:
            self.own.shutdown(cancel_futures=True)

    def __enter__(self) -> _Workers[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _call(work: Work[R], items: Sequence[str], _count: int) -> list[R]:
    """Does the work in a worker; `_count` makes each call another one."""
    return work(items)
