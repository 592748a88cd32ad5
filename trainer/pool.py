"""The same work for many, in processes of this machine."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TypeVar

from listener.errors import MonroError

Errand = TypeVar("Errand")
Result = TypeVar("Result")


class ProcessDied(MonroError):
    """A process ended before its time; what others finished is kept."""

    def __str__(self) -> str:
        return (
            "a process ended before its time, for want of memory as a rule; "
            "run again with fewer processes; what is done is kept"
        )


def spread(
    work: Callable[[Errand], Result], errands: Sequence[Errand], processes: int
) -> Iterator[tuple[Errand, Result]]:
    """Results as they come.

    Args:
        work: goes to other processes, as errands and results do.
        errands: what is to be done.
        processes: at a time; with 1, this process does it.

    Raises:
        ProcessDied: one did.
    """
    if processes == 1:
        yield from ((errand, work(errand)) for errand in errands)
        return
    # forkserver: a fork of a process with threads may hang, and workers must not inherit locks.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool:
        waiting: dict[Future[Result], Errand] = {
            pool.submit(work, errand): errand for errand in errands
        }
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool as error:
            raise ProcessDied from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Let a worker end when the process that started it does; it would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_await_end, args=(parent,), daemon=True).start()


def _await_end(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
