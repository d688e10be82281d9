"""Closing a client leaves no connection, whatever state it was in and however the server behaves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from homefed.api.errors import Transient
from homefed.kube import connections
from homefed.kube.client import KubeClient
from homefed.kube.resources import PODS
from testbed.pki import Pki
from unit.kube.waiting import until

HEADERS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Behaviour = Callable[[socket.socket, ssl.SSLContext], socket.socket]
"""What the server does with an accepted connection; the socket that it keeps until the end of the test."""


def mute(accepted: socket.socket, _tls: ssl.SSLContext) -> socket.socket:
    """A handshake is never answered."""
    return accepted


def reset(accepted: socket.socket, _tls: ssl.SSLContext) -> socket.socket:
    """The server is killed in the middle of a handshake."""
    accepted.recv(1)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
    return accepted


def handshake(accepted: socket.socket, tls: ssl.SSLContext) -> socket.socket:
    """TLS and then nothing."""
    return tls.wrap_socket(accepted, server_side=True)


def watch(accepted: socket.socket, tls: ssl.SSLContext) -> socket.socket:
    """The beginning of an answer, and no goodbye: TLS' close_notify is never read."""
    encrypted = handshake(accepted, tls)
    encrypted.recv(65536)
    encrypted.sendall(HEADERS)
    return encrypted


@dataclass(frozen=True)
class Server:
    url: str
    ca_pem: str
    held: list[socket.socket]

    def client(self) -> KubeClient:
        return KubeClient.from_token(self.url, self.ca_pem, "token", timeout_seconds=30.0)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki"), "scripted", ["127.0.0.1"])


@pytest.fixture(scope="module")
def tls(pki: Pki) -> ssl.SSLContext:
    pair = pki.issue_server("scripted", "scripted", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """Every socket that clients open in a test."""
    sockets: list[socket.socket] = []
    plain = connections.keepalive_socket

    def recorded(address: Any) -> socket.socket:
        sockets.append(plain(address))
        return sockets[-1]

    monkeypatch.setattr(connections, "keepalive_socket", recorded)
    return sockets


@contextmanager
def serving(pki: Pki, tls: ssl.SSLContext, behave: Behaviour) -> Iterator[Server]:
    """Accepts one connection after another in a thread, and holds them all until the end."""
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return  # the test is over
            held.append(accepted)
            accepted.settimeout(10)
            with contextlib.suppress(OSError):  # the client may be gone already
                held.append(behave(accepted, tls))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield Server(f"https://127.0.0.1:{listener.getsockname()[1]}", pki.ca.cert.read_text(), held)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)
            for connection in held:
                connection.close()


async def follow(client: KubeClient) -> None:
    async for _ in client.watch(PODS, None, "1"):
        pass


async def given_up(work: Coroutine[Any, Any, Any], when: Callable[[], bool]) -> None:
    """Runs until `when` holds, and cancels."""
    task = asyncio.ensure_future(work)
    await until(when)
    await asyncio.sleep(0.05)  # what the server has sent by now arrives
    assert not task.done()
    await cancelled(task)


async def cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_watch_given_up_is_closed_though_the_server_says_no_goodbye(
    pki: Pki, tls: ssl.SSLContext, opened: list[socket.socket]
) -> None:
    with serving(pki, tls, watch) as server:
        async with server.client() as client:
            await given_up(follow(client), lambda: len(server.held) == 2)
        assert [one.fileno() for one in opened] == [-1]


@pytest.mark.parametrize("behaviour", [mute, handshake])
async def test_a_request_given_up_is_closed_though_the_server_is_silent(
    pki: Pki, tls: ssl.SSLContext, opened: list[socket.socket], behaviour: Behaviour
) -> None:
    with serving(pki, tls, behaviour) as server:
        async with server.client() as client:
            await given_up(client.list(PODS), lambda: len(server.held) == 2)
        assert [one.fileno() for one in opened] == [-1]


async def test_a_server_killed_in_a_handshake_is_unreachable_and_leaves_nothing(
    pki: Pki, tls: ssl.SSLContext, opened: list[socket.socket]
) -> None:
    with serving(pki, tls, reset) as server:
        async with server.client() as client:
            for _ in range(3):
                with pytest.raises(Transient) as caught:
                    await client.list(PODS)
                assert caught.value.reason == "Unreachable"
        assert [one.fileno() for one in opened] == [-1] * 3


async def test_at_whichever_step_of_connecting_it_is_given_up_nothing_stays_open(
    pki: Pki, tls: ssl.SSLContext, opened: list[socket.socket]
) -> None:
    """asyncio does not close a transport whose request is given up just before its handshake: it goes on unattended."""
    with serving(pki, tls, handshake) as server:
        for steps in range(30):
            async with server.client() as client:
                task = asyncio.ensure_future(client.list(PODS))
                for _ in range(steps):
                    await asyncio.sleep(0)
                await cancelled(task)
            assert [one.fileno() for one in opened if one.fileno() >= 0] == [], f"after {steps} steps"
    assert opened
