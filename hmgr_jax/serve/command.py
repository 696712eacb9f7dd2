"""Serve an index: an API and a page, warm from the first request on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hmgr_jax.command import Parser, guarded, required
from hmgr_jax.errors import UserError

if TYPE_CHECKING:
    from hmgr_jax.serve.safety import Access

TOKEN = "HMGR_JAX_TOKEN"
"""Environment variable of the token, which other users of this machine cannot read."""
SHORTEST = 16
DRAIN_SECONDS = 30
"""Seconds for running requests when the server is told to end."""
IDLE_SECONDS = 10
"""Seconds for a connection to send its first request, and between requests."""
CONNECTIONS = 2048
"""Open connections; further ones are closed at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, 2 for an error the user can fix."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code."""
    begun = time.monotonic()
    parser = Parser("hmgr-jax serve", __doc__)
    parser.add_argument("--index", metavar="DIR", help="an index, or a name created by swap")
    parser.add_argument("--workdir", metavar="DIR", help="the new folder of a run that was moved")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=8000, metavar="INT", help="0 takes a free one")
    parser.add_argument(
        "--token",
        help="what clients have to send (or the variable HMGR_JAX_TOKEN); required for a host that "
        "other machines reach",
    )
    parser.add_argument(
        "--name", nargs="+", default=[], metavar="HOST", help="further names of this host"
    )
    flags = parser.parse(arguments or ["--help"])
    index = Path(required(flags, "index"))
    if not 0 <= flags.port <= 65535:
        raise UserError(f"--port is {flags.port}, but must be from 0 to 65535: correct it.")
    _check_packages()
    access = _access(flags.host, flags.token or os.environ.get(TOKEN, ""), flags.name)
    from hmgr_jax.search import running
    from hmgr_jax.search.index import Index
    from hmgr_jax.serve.app import create_app
    from hmgr_jax.serve.service import Service

    Index.about_of(index)  # before the slow part
    with contextlib.closing(_bound(flags.host, flags.port)) as listener:
        service = Service(index, flags.workdir)
        programs = service.warm()
        app = create_app(service, access)
        url = _url(flags.host, listener.getsockname()[1])
        print(
            f"{len(service.snapshot.numbers):,} {service.snapshot.searcher.modality} items, "
            f"{programs} programs compiled, ready after {time.monotonic() - begun:.1f} s"
        )
        own = f"?token={access.token}" if access.token else ""
        with running.announced(index, url, access.token):
            listener.listen(CONNECTIONS)
            print(f"page:       {url}/{own}", flush=True)
            asyncio.run(_serve(app, listener))
    print("ended: every accepted request was answered", flush=True)
    return 0


def _check_packages() -> None:
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error.name}, which the server needs, is not installed: run pip install "
            "'hmgr-jax[serve]'."
        ) from None


def _access(host: str, token: str, names: Sequence[str]) -> Access:
    from hmgr_jax.serve.safety import Access, is_loopback

    if not is_loopback(host) and len(token) < SHORTEST:
        raise UserError(
            f"--host {host} is reached by other machines: give a --token of at least {SHORTEST} "
            f"characters, such as {secrets.token_urlsafe(18)}."
        )
    if not all(c.isalnum() or c in "-_.~" for c in token):
        raise UserError(
            "--token has characters other than letters, digits and -_.~: leave them out."
        )
    return Access(host, token, tuple(names))


def _bound(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet, so that a taken port is told before the slow part."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise UserError(f"--host {host} is no address ({error.strerror}): correct it.") from None
    found = socket.socket(family, kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        raise UserError(
            f"Port {port} of {host} cannot be used ({error.strerror}): give another --port."
        ) from None
    return found


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown and not shown.startswith('[') else shown}:{port}"


async def _serve(app: Any, listener: socket.socket) -> None:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Bounded(H11Protocol):
        """A protocol that closes idle connections and those above a bound."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > CONNECTIONS:
                transport.close()
            self.loop.call_later(IDLE_SECONDS, self._close_if_silent)

        def _close_if_silent(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    class Server(uvicorn.Server):
        """A server that ends with exit code 0 after a signal."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            def end(number: int, frame: FrameType | None) -> None:
                self.handle_exit(number, frame)

            former = {n: signal.signal(n, end) for n in (signal.SIGTERM, signal.SIGINT)}
            try:
                yield
            finally:
                for number, handler in former.items():
                    signal.signal(number, handler)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, 2 * CONNECTIONS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    config = uvicorn.Config(
        app,
        http=Bounded,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    await Server(config).serve(sockets=[listener])
