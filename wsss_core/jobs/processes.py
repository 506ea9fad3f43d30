"""Work on the images of one job in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

import torch

from wsss_core.execution import keep_freed_memory

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_processes(
    count: int, work: Callable[[Given], Made], items: Sequence[Given], *, threads: int = 1
) -> Iterator[Made]:
    """What a function makes of every item, in order, at most `count` at a time, each in a process of its own.

    The processes are forked from a fresh one that has imported the function's module, so it is imported once; none
    has touched a GPU before. They end with this process, whatever ends it.

    Parameters
    ----------
    work
        A function of a module, or a partial one.
    threads
        CPU threads of each process.

    Raises
    ------
    Exception
        The error of the first item that fails, in its turn.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([getattr(work, "func", work).__module__])
    pool = ProcessPoolExecutor(
        min(count, len(items)), mp_context=context, initializer=_start_worker, initargs=(threads,)
    )
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # this runs in a child only
    parent.join()
    os._exit(1)
