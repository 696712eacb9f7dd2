"""Prepare objects in several processes; an object that kills its process is skipped."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from hmgr_jax.preparation.objects_tree import Making, Task, make_object
from hmgr_jax.workers import begin_worker

AHEAD = 2
"""Objects in the queue, as a multiple of the processes."""
BROUGHT_DOWN = "{} brought down the process that prepared it, perhaps for want of memory."


def made(tasks: Sequence[Task], making: Making, workers: int) -> Iterator[tuple[Task, str]]:
    """Yield every finished task with its error message (see `make_object`)."""
    if workers == 1:
        for task in tasks:
            yield task, make_object(task, making)
        return
    waiting = deque(tasks)
    while waiting:  # again where a pool was brought down
        suspects: list[Task] = []
        yield from _in_pool(waiting, making, min(workers, len(waiting)), suspects)
        for task in suspects:
            yield task, _alone(task, making)


def _in_pool(
    waiting: deque[Task], making: Making, workers: int, suspects: list[Task]
) -> Iterator[tuple[Task, str]]:
    """Tasks from ``waiting`` until it is empty, or until the pool is down: ``suspects`` then are
    those that were handed out.
    """
    running: dict[Future[str], Task] = {}
    pool = _pool(workers)
    try:
        while waiting or running:
            while waiting and len(running) < AHEAD * workers:
                task = waiting.popleft()
                running[pool.submit(make_object, task, making)] = task
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running[future], future.result()
                del running[future]
    except BrokenProcessPool:
        suspects += running.values()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _alone(task: Task, making: Making) -> str:
    """Run one task in a process of its own."""
    if task.is_done():  # it had come to its end before the other one fell
        return ""
    pool = _pool(1)
    try:
        return pool.submit(make_object, task, making).result()
    except BrokenProcessPool:
        return BROUGHT_DOWN.format(task.path)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)


def usual_workers() -> int:
    """The number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
