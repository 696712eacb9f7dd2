"""A queue with a deadline: requests that arrive together are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

DEADLINE = 0.01
"""Seconds that the first request of a batch waits for others."""
AT_ONCE = 64
"""Most requests of a batch."""


class Batcher:
    """Give requests in batches to a function that one thread runs.

    Args:
        answer: one result, or exception, for each request.
        told: is called with the size of each batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Any]], Sequence[Any]],
        told: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._answer, self._told = answer, told
        self._queue: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(1, "device")

    async def ask(self, request: Any) -> Any:
        """The result of a request; raises the exception that answered it."""
        future = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((request, future))
        return await future

    async def run(self) -> None:
        """Answer requests until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            end = loop.time() + DEADLINE
            while len(batch) < AT_ONCE and (left := end - loop.time()) > 0:
                try:
                    batch.append(await asyncio.wait_for(self._queue.get(), left))
                except TimeoutError:
                    break
            batch = [each for each in batch if not each[1].done()]  # whose client has gone
            if not batch:
                continue
            self._told(len(batch))
            requests = [request for request, _ in batch]
            try:
                results = await loop.run_in_executor(self._pool, self._answer, requests)
            except Exception as error:
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def do(self, function: Callable[..., Any], *given: Any) -> Any:
        """Run a function on the thread of the device."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *given)
