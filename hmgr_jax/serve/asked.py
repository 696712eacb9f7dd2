"""Read a search from the body of a request, within bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from hmgr_jax.errors import UserError
from hmgr_jax.serve.pictures import decode
from hmgr_jax.serve.safety import Limits
from hmgr_jax.serve.service import Part
from hmgr_jax.serve.snapshot import Filters

KEYS = ("query", "queries", "k", "folder", "after", "before")
KINDS = ("text", "id", "upload")
K = 20
HEAVIEST = 100.0


class Search(NamedTuple):
    """A search as it was asked."""

    parts: list[Part]
    k: int
    filters: Filters


async def read_search(request: Request, limits: Limits) -> Search:
    """The search of a request: JSON, or a form of ``request`` (JSON) and ``picture`` files.

    Raises:
        UserError: a value is missing or wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        try:
            form = await request.form(max_files=limits.queries, max_fields=4)
        except HTTPException as error:
            raise UserError(f"The form cannot be read: {error.detail}") from None
        async with _closing(form):
            return await _of_form(form, limits)
    if kind != "application/json":
        raise UserError("Send application/json, or multipart/form-data with pictures.")
    return _search(_parsed(await request.body()), [], limits)


class _closing:
    """Close the files of a form."""

    def __init__(self, form: FormData) -> None:
        self._form = form

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None:
        await self._form.close()


async def _of_form(form: FormData, limits: Limits) -> Search:
    given = form.get("request", "{}")
    if isinstance(given, UploadFile):
        raise UserError("request is a field of JSON, not a file.")
    files = form.getlist("picture")
    contents = [await file.read() for file in files if isinstance(file, UploadFile)]
    if len(contents) != len(files):
        raise UserError("picture is a file, not a field.")
    # On another thread: decoding takes up to seconds.
    return await run_in_threadpool(_search, _parsed(given.encode()), contents, limits)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise UserError("The request is not JSON: correct it.") from None
    if not isinstance(found, dict):
        raise UserError('The request must be an object, such as {"query": "two dogs"}.')
    if unknown := [key for key in found if key not in KEYS]:
        raise UserError(f"There is no key {unknown[0][:40]!r}: known are {', '.join(KEYS)}.")
    return found


def _search(given: Mapping[str, Any], files: list[bytes], limits: Limits) -> Search:
    queries = given.get("queries", [])
    if not isinstance(queries, list):
        raise UserError('queries is a list, such as [{"text": "snow", "weight": 0.5}].')
    if "query" in given:
        queries = [{"text": given["query"]}, *queries]
    if not queries:
        queries = [{"upload": n} for n in range(len(files))]
    if not 1 <= len(queries) <= limits.queries:
        raise UserError(
            f"A search has from 1 to {limits.queries} queries, got {len(queries)}: send a query."
        )
    parts = [_part(query, files, limits) for query in queries]
    if not any(part.weight for part in parts):
        raise UserError("All weights are 0: give a query another weight.")
    k = given.get("k", K)
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= limits.k:
        raise UserError(f"k must be from 1 to {limits.k}, got {k!r:.40}.")
    return Search(parts, k, _filters(given, limits))


def _part(query: Any, files: list[bytes], limits: Limits) -> Part:
    kinds = [kind for kind in KINDS if isinstance(query, dict) and kind in query]
    if len(kinds) != 1:
        raise UserError(f"A query has one of {', '.join(KINDS)}, got {query!r:.80}.")
    (kind,), weight = kinds, query.get("weight", 1.0)
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not abs(weight) <= HEAVIEST:
        raise UserError(f"weight is a number up to {HEAVIEST:g}, got {weight!r:.40}.")
    value = query[kind]
    if kind == "upload":
        if not isinstance(value, int) or not 0 <= value < len(files):
            raise UserError(f"upload counts the picture files from 0, got {value!r:.40}.")
        return Part("image", decode(files[value], limits.pixels), float(weight))
    most = limits.letters if kind == "text" else limits.ids
    return Part(kind, _text(kind, value, most), float(weight))


def _text(name: str, value: Any, most: int, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (empty or value.strip()):
        raise UserError(f"{name} is text, got {value!r:.40}: correct it.")
    if len(value) > most:
        raise UserError(f"{name} has {len(value):,} characters, of at most {most:,}: shorten it.")
    return value


def _filters(given: Mapping[str, Any], limits: Limits) -> Filters:
    folder = _text("folder", given.get("folder", ""), limits.ids, empty=True)
    after, before = (_day(name, given.get(name)) for name in ("after", "before"))
    if before is not None:  # the whole day
        before += timedelta(days=1).total_seconds()
    return Filters(folder, after, before)


def _day(name: str, value: Any) -> float | None:
    if value in (None, ""):
        return None
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{name} is a date, such as 2026-12-01, got {value!r:.40}.") from None
