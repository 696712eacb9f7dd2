"""The application: routes of the API and the page."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import hmgr_jax
from hmgr_jax.errors import UserError
from hmgr_jax.reports.explanation import explains
from hmgr_jax.search.index import Item
from hmgr_jax.search.report import frames_of_item, pictures_of_items
from hmgr_jax.serve.asked import read_search
from hmgr_jax.serve.batching import Batcher
from hmgr_jax.serve.explaining import explain
from hmgr_jax.serve.metrics import Metrics
from hmgr_jax.serve.openapi import document
from hmgr_jax.serve.overview import overview
from hmgr_jax.serve.pictures import PICTURE, THUMBNAIL, Pictures
from hmgr_jax.serve.safety import Access, Gate, Limits, is_loopback, refused
from hmgr_jax.serve.service import Job, Service, described
from hmgr_jax.serve.snapshot import Snapshot
from hmgr_jax.terminal import escape_controls

RENEW_EVERY = 0.5
"""Seconds between looks for another version of the index."""
BODY_SECONDS = 30.0
"""Seconds for a client to send its request."""
CACHED = {"Cache-Control": "private, max-age=3600"}


class Application:
    """The handlers of a service."""

    def __init__(self, service: Service, access: Access, limits: Limits) -> None:
        self.service, self.limits = service, limits
        self.local = is_loopback(access.host)
        self.metrics = Metrics()
        self.batcher = Batcher(service.answer, self.metrics.batches.add)
        self.pictures = Pictures(self._draw, self._frames)
        self._overview: tuple[Snapshot, dict[str, Any]] | None = None
        self._looking = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:
        """Answer and follow the index until the server ends."""
        await run_in_threadpool(self.pictures.prune)
        tasks = [asyncio.create_task(each) for each in (self.batcher.run(), self._follow())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY)
            before = self.service.refused
            if await run_in_threadpool(self.service.renew):
                print(escape_controls(f"now serving {self.service.snapshot.version}"), flush=True)
            elif self.service.refused and self.service.refused != before:
                print(
                    escape_controls(f"not served: {self.service.refused}"),
                    file=sys.stderr,
                    flush=True,
                )

    def _draw(self, item: Item) -> Any:
        searcher = self.service.snapshot.searcher
        return pictures_of_items(
            searcher.retriever, searcher.index.about["split"], searcher.modality, [item]
        )[0]

    def _frames(self, item: Item) -> Any:
        searcher = self.service.snapshot.searcher
        split = searcher.index.about["split"]
        return frames_of_item(searcher.retriever, split, searcher.modality, item)

    async def search(self, request: Request) -> Response:
        """``POST /api/search``."""
        asked = await asyncio.wait_for(read_search(request, self.limits), BODY_SECONDS)
        snapshot = self.service.snapshot
        notes = self.service.check(asked.parts, snapshot)
        hits = await self.batcher.ask(Job(snapshot, asked.parts, asked.k, asked.filters))
        return JSONResponse(described(snapshot, hits, local=self.local) | {"notes": notes})

    async def item(self, request: Request) -> Response:
        """``GET /api/items/ID``."""
        snapshot = self.service.snapshot
        item = _item(snapshot, request.path_params["id"])
        row = item._asdict() | {"date": snapshot.day(item.id)}
        if not self.local:
            row.pop("picture")
        return JSONResponse(row)

    async def thumbnail(self, request: Request) -> Response:
        """``GET /api/items/ID/thumbnail``."""
        return await self._picture(request, THUMBNAIL)

    async def picture(self, request: Request) -> Response:
        """``GET /api/items/ID/picture``: clips play and 3D objects turn."""
        item = _item(self.service.snapshot, request.path_params["id"])
        made = await run_in_threadpool(self.pictures.moving, item)
        if made is not None:
            return Response(made, media_type="image/webp", headers=CACHED)
        return await self._picture(request, PICTURE)

    async def _picture(self, request: Request, side: int) -> Response:
        item = _item(self.service.snapshot, request.path_params["id"])
        try:
            made = await run_in_threadpool(self.pictures.jpeg, item, side)
        except UserError as error:
            return refused(404, str(error))
        return Response(made, media_type="image/jpeg", headers=CACHED)

    async def explain(self, request: Request) -> Response:
        """``GET /api/explain?query=&id=``."""
        snapshot, given = self.service.snapshot, request.query_params
        sentence = given.get("query", "")
        if not sentence.strip() or len(sentence) > self.limits.letters:
            raise UserError(f"query is a sentence of up to {self.limits.letters:,} characters.")
        item = _item(snapshot, given.get("id", ""))
        encoder = self.service.encoder
        return JSONResponse(await self.batcher.do(explain, encoder, snapshot, item, sentence))

    async def overview(self, request: Request) -> Response:
        """``GET /api/overview``, computed once per version."""
        snapshot = self.service.snapshot
        async with self._looking:
            if self._overview is None or self._overview[0] is not snapshot:
                self._overview = snapshot, await run_in_threadpool(overview, snapshot)
        return JSONResponse(self._overview[1])

    async def health(self, request: Request) -> Response:
        """``GET /api/health``."""
        service = self.service
        searcher, model = service.snapshot.searcher, service.encoder.retriever.model
        return JSONResponse(
            {
                "status": "ok",
                "count": len(service.snapshot.numbers),
                "modality": searcher.modality,
                "system": searcher.index.about["system"],
                "version": Path(service.snapshot.version).name,
                "swaps": service.swaps,
                "stale": bool(service.refused),
                "text": "text" in model.modalities
                and not (service.pairs and searcher.modality == "text"),
                "pictures": service.encoder.reads_pictures()
                and not (service.pairs and searcher.modality == "image"),
                "ids": not service.pairs,
                "combined": not service.pairs,
                "explains": explains(model) and searcher.modality == "image",
                "release": hmgr_jax.__version__,
            }
        )

    async def metrics_text(self, request: Request) -> Response:
        """``GET /metrics``."""
        snapshot, service = self.service.snapshot, self.service
        gauges = {"index_items": len(snapshot.numbers), "index_swaps": service.swaps}
        return PlainTextResponse(
            self.metrics.text(**gauges, index_stale=bool(service.refused)),
            media_type="text/plain; version=0.0.4",
        )

    async def openapi(self, request: Request) -> Response:
        """``GET /api/openapi.json``."""
        return JSONResponse(document(self.limits))


def create_app(
    service: Service, access: Access | None = None, limits: Limits | None = None
) -> Starlette:
    """The ASGI application of a service."""
    access, limits = access or Access(), limits or Limits()
    own = Application(service, access, limits)
    get = {
        "/api/items/{id:path}/thumbnail": own.thumbnail,
        "/api/items/{id:path}/picture": own.picture,
        "/api/items/{id:path}": own.item,
        "/api/explain": own.explain,
        "/api/overview": own.overview,
        "/api/health": own.health,
        "/api/openapi.json": own.openapi,
        "/metrics": own.metrics_text,
    }
    web = Path(str(resources.files("hmgr_jax.serve"))) / "web"
    routes = [
        Route("/api/search", _told(own.search), methods=["POST"]),
        *(Route(path, _told(handler)) for path, handler in get.items()),
        Mount("/", _Page(directory=web, html=True)),
    ]
    gate = Middleware(Gate, access=access, limits=limits, metrics=own.metrics)
    return Starlette(
        routes=routes,
        middleware=[gate],
        lifespan=own.running,
        exception_handlers={HTTPException: _http_error},  # type: ignore[dict-item]
    )


class _Page(StaticFiles):
    """The files of the page, which a browser asks for again after a new release."""

    def file_response(self, *given: Any, **options: Any) -> Response:
        response = super().file_response(*given, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _item(snapshot: Snapshot, id: str) -> Item:
    item = snapshot.item(id)
    if item is None:
        raise HTTPException(404, f"The index holds no item {id[:200]!r}.")
    return item


def _told(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Errors of the client as 400, and others as 500 without details."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except UserError as error:
            return refused(400, str(error))
        except TimeoutError:
            return refused(408, "The request came too slowly.")
        except ClientDisconnect:  # nobody reads this
            return refused(400, "The request was cut short.")

    return handle


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refused(error.status_code, str(error.detail))
