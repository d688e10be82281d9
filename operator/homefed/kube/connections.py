"""Connections to an API server: the `kubernetes` library's pool, kept alive, closed to the last, without redirects."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from homefed.api.errors import Refused

CLOSE_SECONDS: Final = 1.0


class Connections(RESTClientObject):
    """The library's connection pool, with TCP keep-alive: routers at home forget silent connections without a word."""

    def __init__(self, configuration: Configuration) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        super().__init__(configuration)

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=self._socket)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        opened = keepalive_socket(address)
        self._sockets.add(opened)
        return opened

    async def close(self) -> None:
        """Returns with every connection closed, whatever the server does.

        aiohttp ends those in its pool. One that was given up before, such as that of a cancelled watch, still waits for
        the server to say goodbye in TLS, which takes asyncio up to 30 s, or is in a handshake that nobody awaits any
        more. Both end at once where the socket has nothing more to tell."""
        await super().close()
        for opened in self._unclosed():
            with suppress(OSError):  # not connected yet, or no longer
                opened.shutdown(socket.SHUT_RDWR)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._unclosed():  # noqa: ASYNC110 - the event loop closes them and tells nobody
                    await asyncio.sleep(0.001)

    def _unclosed(self) -> list[socket.socket]:
        return [opened for opened in self._sockets if opened.fileno() >= 0]


def keepalive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A dead peer shows after 20 + 3 × 10 s of silence, not at the next write."""
    family, kind, protocol = address[:3]
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not on every system that runs the command line
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return opened


def no_redirects() -> aiohttp.TraceConfig:
    """A redirect could send the agent's requests to an address of the sender's choice."""

    async def refuse(_session: object, _context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
        location = params.response.headers.get("Location", "")[:200]
        raise Refused(f"{params.method} {params.url.path}: redirected to {location!r}", reason="Redirected")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace


def proxy_of_environment(url: str) -> str | None:
    """What HTTPS_PROXY, HTTP_PROXY and NO_PROXY say for this address."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)
