"""Asynchronous work, run to its end whoever calls: a script, a thread, a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs work to its end and returns its result; in a thread of its own where this one has a loop (a notebook).

    Ctrl-C, SIGTERM and SIGHUP cancel the work, so that it can end its processes, and then take their usual course.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_cancelled_by_signals(work))
    result: list[T] = []
    failure: list[BaseException] = []
    started: asyncio.Future[Any] | None = None
    loop = asyncio.new_event_loop()

    async def main() -> T:
        nonlocal started
        started = asyncio.current_task()
        return await work

    def body() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                result.append(runner.run(main()))
        except BaseException as err:
            failure.append(err)

    thread = threading.Thread(target=body, name="vmstate-qemu", daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: started and started.cancel())
        thread.join()
        raise
    if failure:
        raise failure[0]
    return result[0]


async def _cancelled_by_signals(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        loop.call_soon_threadsafe(task.cancel)

    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        return await work
    except asyncio.CancelledError:
        if received:
            raise SystemExit(128 + received[0]) from None
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
