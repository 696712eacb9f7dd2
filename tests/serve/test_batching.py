"""The queue of a server: requests that arrive together are answered together."""

import asyncio
import contextlib

import pytest

from hmgr_jax.serve.batching import AT_ONCE, Batcher


def _run(answer, asking):
    """What the coroutine ``asking`` of a running batcher returns, and the sizes of batches."""
    sizes = []

    async def main():
        batcher = Batcher(answer, sizes.append)
        task = asyncio.create_task(batcher.run())
        try:
            return await asking(batcher)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    return asyncio.run(main()), sizes


def test_requests_that_arrive_together_are_one_batch(monkeypatch):
    monkeypatch.setattr("hmgr_jax.serve.batching.DEADLINE", 0.5)

    async def ask(batcher):
        return await asyncio.gather(*(batcher.ask(n) for n in range(AT_ONCE + 3)))

    found, sizes = _run(lambda requests: [10 * n for n in requests], ask)
    assert found == [10 * n for n in range(AT_ONCE + 3)]
    assert sizes == [AT_ONCE, 3]


def test_an_exception_is_that_of_its_request():
    async def ask(batcher):
        asked = (batcher.ask(n) for n in (1, 2))
        return await asyncio.gather(*asked, return_exceptions=True)

    found, _ = _run(lambda requests: [ValueError("no") if n == 1 else n for n in requests], ask)
    assert isinstance(found[0], ValueError)
    assert found[1] == 2


def test_a_batch_that_fails_does_not_end_the_queue():
    def answer(requests):
        if "bad" in requests:
            raise RuntimeError("broken")
        return requests

    async def ask(batcher):
        with pytest.raises(RuntimeError, match="broken"):
            await batcher.ask("bad")
        return await batcher.ask("good")

    assert _run(answer, ask)[0] == "good"


def test_a_request_whose_client_has_gone_is_not_answered():
    async def ask(batcher):
        gone = asyncio.create_task(batcher.ask("gone"))
        await asyncio.sleep(0)
        gone.cancel()
        return await batcher.ask("here")

    asked = []
    assert _run(lambda requests: asked.extend(requests) or requests, ask)[0] == "here"
    assert asked == ["here"]
