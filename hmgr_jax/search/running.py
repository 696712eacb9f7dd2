"""Servers that are running on this machine: a query on the command line asks one of its index.

A server writes ``servers/KEY.json`` in the user's folder of caches while it runs; KEY is a digest
of the folder of the index, without links. Nothing here imports JAX.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hmgr_jax.files.workdir import cache_folder, write_json_atomic
from hmgr_jax.search import versions

SECONDS = 10.0
"""Seconds to wait for an answer."""


def _file(folder: Path) -> Path:
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "servers" / f"{name}.json"


@contextlib.contextmanager
def announced(folder: Path, url: str, token: str) -> Iterator[None]:
    """Say that this process serves the index in ``folder``; the file is for this user alone."""
    file = _file(folder)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.parent.chmod(0o700)
    write_json_atomic(file, {"pid": os.getpid(), "url": url, "token": token})
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if json.loads(file.read_bytes())["pid"] == os.getpid():
                file.unlink()


def ask(flags: argparse.Namespace) -> dict[str, Any] | None:
    """The JSON of sentences from a server of this version of the index; None if none answers.

    Other queries, sheets and options of shortlists are not for the server.
    """
    if (
        flags.candidates is not None
        or flags.image
        or flags.sheet
        or flags.workdir
        or flags.without_own
    ):
        return None
    try:
        server = json.loads(_file(Path(flags.index)).read_bytes())
        place = str(versions.current(flags.index))
        found = [_asked(server, sentence, flags.k) for sentence in flags.sentences]
    except (OSError, ValueError, KeyError, TypeError):  # none runs, or it just ended
        return None
    if not found or any(row["version"] != place for row in found):
        return None
    about = {key: found[0][key] for key in ("system", "step", "modality", "engine", "model")}
    queries = [
        {"query": sentence, "results": row["results"]}
        for sentence, row in zip(flags.sentences, found, strict=True)
    ]
    return {**about, "count": found[0]["count"], "queries": queries}


def _asked(server: dict[str, Any], sentence: str, k: int) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{server['url']}/api/search",
        json.dumps({"query": sentence, "k": k}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {server['token']}"},
    )
    # Without the proxies of the environment: the server is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=SECONDS) as answer:
        return json.load(answer)
