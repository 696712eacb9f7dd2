"""Batches in the order of (seed, step), prefetched by Grain; the data position is the step."""

from __future__ import annotations

import math
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from hmgr_jax.data.draws import Draws
from hmgr_jax.data.order import Batching, make_order
from hmgr_jax.data.split import Items, Source, Split, Varied
from hmgr_jax.errors import UserError
from hmgr_jax.workers import begin_worker

BUCKETS = (16, 24, 32, 48, 96)
"""Padded caption lengths: one compilation of the step each."""
PREFETCH = 6  # batches, some 20 MB each
AHEAD_BYTES = 300 << 20
"""Limit of pixels read ahead; a batch of 128 pictures of 224 x 224 has 77 MB."""

Batch = dict[str, Items]


class Batches:
    """Batches by step: ``batches[step]`` is a pure function; picklable.

    A batch holds the items of every modality of the split and ``"row"``: index int32 (position
    in the global batch), valid bool, group int32 (rows of one group are positives of one another),
    item int32 (row of the split), and labels uint8 [rows, K] if the split has them. The caption
    bucket is chosen for the global batch, which is padded to a multiple of ``pad_to`` by repeating
    its first row with valid False; then the share of ``process`` (index, count) is read.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        pad_to: int = 1,
        process: tuple[int, int] = (0, 1),
        buckets: Sequence[int] = BUCKETS,
        batching: Batching = "rows",
    ) -> None:
        self.split, self.buckets, self.seed = split, tuple(sorted(buckets)), seed
        self.order = make_order(split, batch_size, seed, batching)
        check_lengths(split, self.buckets)
        multiple = math.lcm(pad_to, process[1])
        self.batch_size = batch_size
        self.padded_size = -(-batch_size // multiple) * multiple
        share = self.padded_size // process[1]
        self._slice = slice(process[0] * share, (process[0] + 1) * share)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the split."""
        return self.order.steps_per_epoch

    def __getitem__(self, step: int) -> Batch:
        chosen = self.order.rows(int(step))
        padding = np.full(self.padded_size - len(chosen), chosen[0], chosen.dtype)
        mine = np.concatenate([chosen, padding])[self._slice]
        index = np.arange(self.padded_size, dtype=np.int32)[self._slice]
        found: Batch = {}
        for name, source in self.split.sources.items():
            of_row = self.split.rows[name]
            length = None
            if source.lengths is not None:
                length = _bucket(int(source.lengths[of_row[chosen]].max()), self.buckets)
            if isinstance(source, Varied):
                draws = Draws(self.seed, int(step), index)
                found[name] = source.draw(of_row[mine], draws, length)
            else:
                found[name] = source.gather(of_row[mine], length)
        first = next(iter(self.split.sources))
        found["row"] = {
            "index": index,
            "valid": index < len(chosen),
            "group": self.split.groups[first][self.split.rows[first][mine]].astype(np.int32),
            "item": mine.astype(np.int32),
        }
        if first in self.split.labels:
            found["row"]["labels"] = self.split.labels[first][self.split.rows[first][mine]]
        return found


def batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    steps: int,
    start: int = 0,
    pad_to: int = 1,
    process: tuple[int, int] = (0, 1),
    buckets: Sequence[int] = BUCKETS,
    threads: int = 2,
    workers: int = 0,
    batching: Batching = "rows",
) -> grain.IterDataset[Batch]:
    """Iterate over the `Batches` of steps ``start`` to ``steps - 1``, prefetched.

    ``threads`` threads read, or ``workers`` processes if given, which decode pictures on many
    cores; the batches are the same. A run resumes with ``start`` set to the number of finished
    steps, on any number of processes, without other state.

    Raises:
        UserError: a batch is larger than the split, or a caption longer than the last bucket.
    """
    of_step = Batches(
        split,
        batch_size=batch_size,
        seed=seed,
        pad_to=pad_to,
        process=process,
        buckets=buckets,
        batching=batching,
    )
    ahead = _ahead(split.sources.values(), of_step.padded_size // process[1])
    steps_left = grain.MapDataset.range(steps)[start:].map(of_step.__getitem__)
    if workers:
        return in_processes(steps_left, workers, -(-ahead // workers))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, ahead))
    return steps_left.to_iter_dataset(options)


def in_processes(
    batches: grain.MapDataset[Batch], workers: int, ahead: int
) -> grain.IterDataset[Batch]:
    """Make batches in ``workers`` processes, ``ahead`` each, in the same order."""
    if not flags.FLAGS.is_parsed():  # Grain reads absl's flags
        flags.FLAGS(sys.argv[:1])
    one_thread = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
    return batches.to_iter_dataset(one_thread).mp_prefetch(options, worker_init_fn=_begin_worker)


def _begin_worker(number: int, of: int) -> None:
    begin_worker()


def stop_workers_on_close(stream: grain.IterDataset[Batch]) -> Generator[Batch, None, None]:
    """Yield the batches of ``stream`` and stop its worker processes when iteration ends early.

    Raises:
        UserError: a worker process died.
    """
    batches = iter(stream)
    try:
        yield from batches
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        code = str(error).partition("exit code ")[2].partition(".")[0]
        raise UserError(
            f"A data worker process ended with code {code}, perhaps out of memory: lower "
            "data.workers and run the same command to resume from the last checkpoint."
        ) from None
    finally:
        batches.close()  # prefetched batches lie in shared memory, which outlives the processes


def check_lengths(split: Split, buckets: Sequence[int]) -> None:
    """Check that no item of a split is longer than the last bucket.

    Raises:
        UserError: names the split and the longest item.
    """
    for name, source in split.sources.items():
        if source.lengths is not None:
            _check_lengths(f"{split.name}'s {name}", source.lengths, tuple(sorted(buckets)))


def eval_batches(
    source: Source,
    batch_size: int,
    *,
    process: tuple[int, int] = (0, 1),
    buckets: Sequence[int] = BUCKETS,
    threads: int = 2,
) -> Iterator[tuple[np.ndarray, np.ndarray, Items]]:
    """Every item of a source once, for encoding: (item indices [B], valid [B], items).

    Items with lengths are sorted by length, so that each bucket has batches of one fixed shape. The
    last batch of a bucket repeats its first item with valid False. Every ``process`` (index, count)
    reads the same number of batches of the same shapes, some perhaps without a valid item.
    """
    plan = _plan(source, batch_size, tuple(sorted(buckets)), process)

    def read(k: int) -> tuple[np.ndarray, np.ndarray, Items]:
        items, length, own = plan[k]
        valid = (np.arange(batch_size) < len(items)) & own
        padded = np.concatenate([items, np.full(batch_size - len(items), items[0], items.dtype)])
        return padded, valid, source.gather(padded, length)

    ahead = _ahead([source], batch_size)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, ahead))
    yield from grain.MapDataset.range(len(plan)).map(read).to_iter_dataset(options)


def _plan(
    source: Source, batch_size: int, buckets: tuple[int, ...], process: tuple[int, int]
) -> list[tuple[np.ndarray, Any, bool]]:
    """(items, padded length, valid) of every evaluation batch of a process."""
    everything = np.arange(len(source), dtype=np.int32)
    parts: list[tuple[np.ndarray, int | None]] = [(everything, None)]
    if source.lengths is not None:
        _check_lengths("the source", source.lengths, buckets)
        order = np.argsort(source.lengths, kind="stable").astype(np.int32)
        edges = np.searchsorted(source.lengths[order], buckets, side="right")
        parts = list(zip(np.split(order, edges[:-1]), buckets, strict=True))
    plan = []
    for items, length in parts:
        starts = list(range(0, len(items), batch_size))
        for k in range(process[0], -(-len(starts) // process[1]) * process[1], process[1]):
            start = starts[min(k, len(starts) - 1)]
            plan.append((items[start : start + batch_size], length, k < len(starts)))
    return plan


def _ahead(sources: Iterable[Source], batch_size: int) -> int:
    """Number of batches to prefetch, within `AHEAD_BYTES` of pixels."""
    held = batch_size * sum(getattr(source, "item_bytes", 0) for source in sources)
    return max(1, min(PREFETCH, AHEAD_BYTES // held)) if held else PREFETCH


def _bucket(longest: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds ``longest``."""
    return next(bucket for bucket in buckets if bucket >= longest)


def _check_lengths(what: str, lengths: np.ndarray, buckets: Sequence[int]) -> None:
    longest = int(lengths.max(initial=0))
    if longest > buckets[-1]:
        raise UserError(
            f"{what} holds an item of length {longest}, but the last bucket is {buckets[-1]}: add "
            "a bucket or lower max_words."
        )
