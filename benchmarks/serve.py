"""Load of a server: requests of many clients, one at a time, and beside swaps of the index.

    python -m benchmarks.serve --vectors 100000 --requests 1000 --clients 32 --swaps 200

The index holds random vectors of the packed model's size; the server is a process of its own, and
every request has words of its own. ``lost`` counts requests without an answer, ``mixed`` answers
whose results are not those of the version that they name.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.search import versions
from hmgr_jax.search.find import load_model
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.searcher import Searcher, model_key
from hmgr_jax.search.versions import publish

MODEL, K = "flickr8k", 20


def main() -> None:
    """Measure, and print one row of JSON per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"vectors": 100_000, "requests": 1000, "clients": 32, "swaps": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--engine", default=None)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "index")
        made = [_searcher(flags.vectors, seed, flags.engine) for seed in range(2)]
        made[0].save(folder)
        begun = time.perf_counter()
        process, url = _start(folder)
        try:
            _ask(url, 0)
            _show("start", seconds=time.perf_counter() - begun, memory_mb=_memory(process.pid))
            words = list(made[0].retriever.vocabulary.words[4:])
            for clients in (1, flags.clients):
                _measure(url, words, flags.requests, clients)
            if flags.swaps:
                swapped = threading.Thread(target=_swap, args=(folder, made, flags.swaps))
                swapped.start()
                _measure(url, words, flags.requests, flags.clients, until=swapped)
                swapped.join()
            _show("end", memory_mb=_memory(process.pid))
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()


def _searcher(count: int, seed: int, engine: str | None) -> Searcher:
    """Random vectors whose ids begin with the seed."""
    retriever = load_model(MODEL)
    codes = retriever.encode("text", ["a dog"])
    dim = retriever.evaluator.vectors(retriever.variables, "text", codes).shape[1]
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    about = {
        "workdir": MODEL,
        "system": retriever.config.model.name,
        "step": retriever.step,
        "modality": "image",
        "split": "",
    }
    items = [Item(f"{seed}/{n}") for n in range(count)]
    key = model_key(retriever)
    return Searcher(
        retriever, Index.build(vectors, items, model=key, engine=engine, about=about), None
    )


def _start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "hmgr_jax.serve", "--index", str(folder), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"page: +(\S+)/", line):
            return process, found[1]
    raise SystemExit("The server did not start.")


def _ask(url: str, number: int, words: list[str] | None = None) -> tuple[float, dict[str, Any]]:
    rng = random.Random(number)
    text = " ".join(rng.sample(words, 6)) if words else "two dogs run on the beach"
    body = json.dumps({"query": text, "k": K}).encode()
    request = urllib.request.Request(
        f"{url}/api/search", body, {"Content-Type": "application/json"}
    )
    begun = time.perf_counter()
    with urllib.request.urlopen(request, timeout=120) as answer:
        found = json.load(answer)
    return time.perf_counter() - begun, found


def _measure(
    url: str,
    words: list[str],
    requests: int,
    clients: int,
    until: threading.Thread | None = None,
) -> None:
    """Ask ``requests`` times, and longer while a thread runs."""
    seconds: list[float] = []
    lost: list[str] = []
    mixed: list[str] = []
    owners: dict[str, set[str]] = {}

    def one(number: int) -> None:
        try:
            took, found = _ask(url, number, words)
        except OSError as error:
            lost.append(str(error))
            return
        seconds.append(took)
        own = {result["id"].partition("/")[0] for result in found["results"]}
        if len(own) != 1 or owners.setdefault(found["version"], own) != own:
            mixed.append(found["version"])

    begun = time.perf_counter()
    number = 0
    with ThreadPoolExecutor(clients) as pool:
        while number < requests or (until is not None and until.is_alive()):
            more = max(clients, requests - number)
            list(pool.map(one, range(number, number + more)))
            number += more
    total = time.perf_counter() - begun
    _show(
        "swaps" if until is not None else "load",
        clients=clients,
        requests=number,
        per_second=len(seconds) / total,
        p50_ms=1e3 * float(np.quantile(seconds, 0.5)),
        p99_ms=1e3 * float(np.quantile(seconds, 0.99)),
        lost=len(lost),
        mixed=len(mixed),
        versions=len(owners),
    )


def _swap(folder: Path, made: list[Searcher], count: int) -> None:
    """Publish version after version, as ``search update`` does."""

    def save(searcher: Searcher) -> Callable[[Path], None]:
        return lambda place: searcher.save(place)

    for number in range(count):
        publish(folder, save(made[(number + 1) % 2]))
    assert versions.current(folder).name == str(count + 1)


def _memory(pid: int) -> float:
    """Resident megabytes of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else float("nan")


def _show(case: str, **values: float) -> None:
    print(json.dumps({"case": case} | {k: round(v, 2) for k, v in values.items()}), flush=True)


if __name__ == "__main__":
    main()
