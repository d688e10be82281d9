"""The smallest client of an API server: JSON over TLS with the standard library, also into a network namespace.

The testbed asks for readiness many times a second, where a kubectl process each would cost more than what is waited
for. A socket belongs for ever to the network namespace in which it was made; so a thread enters the namespace,
connects, and hands the socket over.
"""

import contextlib
import ctypes
import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.pki import Pair

CLONE_NEWNET = 0x40000000
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


class ApiError(TestbedError):
    """The API server answered with an error. `status` is HTTP's; `body` the decoded Status object, where it was one."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body.get('message', body) if isinstance(body, dict) else body}")
        self.status = status
        self.body = body


class Api:
    """Requests to one API server, as one user: a client certificate, else a bearer token, else anonymous.

    A connection per request: servers under test are killed at any moment. Thread-safe."""

    def __init__(
        self, host: str, port: int, ca: Path, *, cert: Pair | None = None, token: str = "", netns: str | None = None
    ) -> None:
        self.host, self.port, self.netns = host, port, netns
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._tls = ssl.create_default_context(cafile=str(ca))
        if cert is not None:
            self._tls.load_cert_chain(cert.cert, cert.key)

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", timeout_s: float = 30
    ) -> Any:
        """The decoded JSON answer, or its text when it is not JSON. Raises ApiError for a status of 400 and more, and
        OSError when nobody answers."""
        status, text = self._exchange(method, path, body, content_type, timeout_s)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = text
        if status >= 400:
            raise ApiError(status, answer)
        return answer

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def answers(self, path: str = "/readyz") -> bool:
        """Whether GET of the path succeeds now, within a second."""
        try:
            self.request("GET", path, timeout_s=1)
        except (ApiError, OSError, http.client.HTTPException):
            return False
        return True

    @contextlib.contextmanager
    def lines(self, path: str, idle_s: float = 60) -> Iterator[http.client.HTTPResponse]:
        """A streamed answer, such as a watch, to be read line by line. Raises ApiError and OSError."""
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=idle_s, context=self._tls)
        plain = connect(self.host, self.port, idle_s, self.netns)
        with contextlib.closing(connection):
            connection.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
            connection.request("GET", path, headers=self._headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError(response.status, response.read().decode())
            yield response

    def _exchange(self, method: str, path: str, body: Any, content_type: str, timeout_s: float) -> tuple[int, str]:
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=self._tls)
        plain = connect(self.host, self.port, timeout_s, self.netns)
        with contextlib.closing(connection):
            with plain:
                connection.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, self._headers | {"Content-Type": content_type})
            response = connection.getresponse()
            return response.status, response.read().decode()


def connect(host: str, port: int, timeout_s: float, netns: str | None = None) -> socket.socket:
    """A TCP connection made in the named network namespace (None: this one). Raises OSError."""
    if netns is None:
        return socket.create_connection((host, port), timeout_s)
    outcome: list[socket.socket | OSError] = []

    def enter_and_connect() -> None:
        try:
            _enter(netns)
            outcome.append(socket.create_connection((host, port), timeout_s))
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=enter_and_connect, name=f"netns-{netns}")
    thread.start()
    thread.join()
    if isinstance(result := outcome[0], OSError):
        raise result
    return result


def _enter(netns: str) -> None:
    """Moves the calling thread, and only it, into a network namespace."""
    descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter network namespace {netns}")
    finally:
        os.close(descriptor)
