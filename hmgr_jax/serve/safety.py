"""Between the network and the application: hosts, origins, the token, bounds, headers."""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hmgr_jax.serve.metrics import Metrics

COOKIE = "hmgr_token"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
OPEN = ("/api/health",)
"""Paths that need no token and are answered under any load."""


@dataclass(frozen=True)
class Limits:
    """Bounds of requests."""

    form: int = 20 << 20
    """Bytes of a form with pictures."""
    text: int = 1 << 20
    """Bytes of any other request."""
    running: int = 128
    """Requests at a time; further ones are refused with 503."""
    k: int = 1000
    pixels: int = 64_000_000
    """Pixels of an uploaded picture."""
    queries: int = 8
    """Queries of a search."""
    letters: int = 2000
    """Letters of a sentence."""
    ids: int = 4096
    """Letters of an id or a folder."""


@dataclass(frozen=True)
class Access:
    """Who may ask."""

    host: str = "127.0.0.1"
    token: str = ""
    names: Collection[str] = field(default_factory=tuple)
    """Further names of this host, as clients write them."""

    def knows(self, host: str) -> bool:
        """Whether a Host header, or the host of an origin, is this server."""
        name = urlsplit(f"//{host}").hostname or ""
        if name in (*LOOPBACK, self.host, *self.names):
            return True
        # Addresses cannot be rebound; names can.
        return bool(self.token) and is_address(name)


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


class _TooLarge(Exception):
    """The body of a request exceeds its bound."""


class Gate:
    """ASGI middleware: refuse what may not be asked, bound what may, count, add headers."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, metrics: Metrics) -> None:
        self.app, self.access, self.limits, self.metrics = app, access, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start, begun = 500, time.perf_counter(), False

        async def sending(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        path = scope["path"]
        refusal = self._refusal(scope)
        counted = refusal is None and path not in OPEN
        self.metrics.running += counted
        try:
            if refusal is not None:
                await refusal(scope, receive, sending)
            else:
                await self.app(scope, _bounded(receive, self._most(scope)), sending)
        except _TooLarge:
            if not begun:
                await _too_large(self._most(scope))(scope, receive, sending)
        finally:
            self.metrics.running -= counted
            self.metrics.requests[kind_of(path), status] += 1
            if path == "/api/search":
                self.metrics.seconds.add(time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        if not self.access.knows(headers.get("host", "")):
            return refused(421, "This server has another name: give it with --name, or ask by it.")
        origin = headers.get("origin")
        if origin is not None and not self._same(origin, headers["host"]):
            return refused(403, "Requests of other sites are refused.")
        if headers.get("sec-fetch-site") == "cross-site" and path.startswith("/api"):
            return refused(403, "Requests of other sites are refused.")
        if self.access.token and path not in OPEN:
            if (given := self._offered(scope)) is not None:
                return given
            if not self._holds_token(headers):
                return refused(
                    401, "This server needs its token: open the address that it printed."
                )
        if path not in OPEN and self.metrics.running >= self.limits.running:
            return refused(503, "Too many requests at a time: try again.", {"Retry-After": "1"})
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._most(scope):
            return _too_large(self._most(scope))
        return None

    def _most(self, scope: Scope) -> int:
        """Bytes that the request may have."""
        kind = Headers(scope=scope).get("content-type", "")
        return self.limits.form if kind.startswith("multipart/") else self.limits.text

    def _same(self, origin: str, host: str) -> bool:
        return origin != "null" and urlsplit(origin).netloc == host

    def _offered(self, scope: Scope) -> Response | None:
        """``/?token=...`` stores the token as a cookie, so that pictures are requested with it."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] != "/" or not self._equal(given):
            return None
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, given, httponly=True, samesite="strict")
        return response

    def _holds_token(self, headers: Headers) -> bool:
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            found = None
        return self._equal(bearer) or (found is not None and self._equal(found.value))

    def _equal(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.access.token.encode())


def _bounded(receive: Receive, most: int) -> Receive:
    taken = 0

    async def receiving() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise _TooLarge
        return message

    return receiving


def _too_large(most: int) -> Response:
    return refused(413, f"Such a request has at most {most:,} bytes: send less.")


def refused(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says what is wrong."""
    return JSONResponse({"error": sentence}, status, headers)


def kind_of(path: str) -> str:
    """The kind of a path, without ids, for metrics."""
    if path.startswith("/api/items/"):
        last = path.rpartition("/")[2]
        return f"/api/items/{last}" if last in ("thumbnail", "picture") else "/api/items"
    known = ("/api/search", "/api/explain", "/api/health", "/api/overview", "/metrics", "/")
    return path if path in known else "other"
