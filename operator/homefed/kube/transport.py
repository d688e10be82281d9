"""The HTTP side of the client: configuration, authentication and connections of the `kubernetes` library, nothing else.

Bodies stay dicts: the library's typed models cost several times the time and memory and drop fields that they do not
know. Every answer is bounded in time and size; redirects are refused, as an API server has no reason to send one.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlencode, urlsplit

import aiohttp
import yaml
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from homefed.api.errors import HomefedError, Invalid, Refused, Transient
from homefed.kube.connections import Connections, no_redirects, proxy_of_environment
from homefed.kube.failures import failure, http_date

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
MAX_STATUS_BYTES: Final = 1024 * 1024
CONNECT_SECONDS: Final = 5.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Json = dict[str, Any]
Body = Json | list[Json]
Lines = AsyncIterator[bytes]
OnDate = Callable[[datetime], None]
Load = Callable[[Configuration], Awaitable[None]]


def kubeconfig(path: str | Path, context: str | None) -> Load:
    """Loads a kubeconfig file; raises Invalid, naming the file, where it cannot be used."""

    async def load(configuration: Configuration) -> None:
        if not Path(path).is_file():  # noqa: ASYNC240 - a local file, once
            raise Invalid(f"kubeconfig {path}: there is no such file", reason="NoKubeconfig")
        try:
            await load_kube_config(str(path), context, configuration, persist_config=False)  # type: ignore[no-untyped-call]
        except (ConfigException, yaml.YAMLError, OSError, TypeError, ValueError, AttributeError, KeyError) as error:
            # The library's loader checks little and fails in many ways on a malformed file; what follows " in " in its
            # messages can be a whole user entry with its token.
            problem = str(error).split(" in ")[0]
            raise Invalid(f"kubeconfig {path}: {problem}", reason="MalformedKubeconfig") from None

    return load


def incluster() -> Load:
    """The pod's own ServiceAccount; its token file is read again every minute."""

    async def load(configuration: Configuration) -> None:
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            raise Refused(f"no credentials of a pod: {error}", reason="NotInCluster") from error

    return load


def bearer(url: str, ca_pem: str | None, token: str) -> Load:
    """An API server by address, CA (PEM; None: the system's) and bearer token."""

    async def load(configuration: Configuration) -> None:
        if not _is_private(url):
            raise Invalid(f"API server address {url!r}: must start with https://", reason="InvalidAddress")
        configuration.host = url.rstrip("/")
        configuration.ca_cert_data = ca_pem
        configuration.api_key["BearerToken"] = f"Bearer {token}"

    return load


def _is_private(url: str) -> bool:
    """Whether a token sent there cannot be overheard: TLS, or this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    timeout: aiohttp.ClientTimeout
    query: Mapping[str, str] | None = None
    body: Body | None = None
    content_type: str = "application/json"

    @property
    def what(self) -> str:
        """The request in words, for messages."""
        return f"{self.method} {self.path}"


class Transport:
    """Requests as dicts, answers as dicts, failures as errors of the tree."""

    def __init__(self, load: Load, *, user_agent: str, timeout_seconds: float, on_date: OnDate | None) -> None:
        self._load = load
        self._user_agent = user_agent
        self._timeout_seconds = timeout_seconds
        self._on_date = on_date
        self._connections: Connections | None = None

    async def open(self) -> None:
        configuration = Configuration()
        await self._load(configuration)
        # As in Go's TLS: CAs of small clusters often lack the key identifiers that Python ≥ 3.13 asks for.
        configuration.disable_strict_ssl_verification = True
        configuration.trace_configs = [no_redirects()]
        # Not aiohttp's own reading of the environment: it opens ~/.netrc at each request and fails on a default entry.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.proxy = configuration.proxy or proxy_of_environment(configuration.host)
        try:
            self._connections = Connections(configuration)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise Invalid(f"certificates for {configuration.host}: {error}", reason="InvalidCertificate") from error

    async def close(self) -> None:
        if self._connections is not None:
            await self._connections.close()
            self._connections = None

    def use_token(self, token: str) -> None:
        """Bearer token from the next request on."""
        self._opened().configuration.api_key["BearerToken"] = f"Bearer {token}"

    async def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
        timeout_seconds: float | None = None,
    ) -> Json:
        """One request, answered by one JSON object. Raises errors of the tree, never those of the HTTP library."""
        timeout = aiohttp.ClientTimeout(total=timeout_seconds or self._timeout_seconds, sock_connect=CONNECT_SECONDS)
        request = _Request(method, path, timeout, query, body, content_type)
        async with self._answer(request) as answer:
            return json_object(await _read(answer, MAX_ANSWER_BYTES, request.what), request.what)

    @asynccontextmanager
    async def lines(
        self, path: str, query: Mapping[str, str], idle_seconds: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A streamed answer, line by line. Transient when nothing comes for `idle_seconds` or the connection breaks."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=idle_seconds)
        request = _Request("GET", path, timeout, query)
        async with self._answer(request) as answer:
            yield _lines(answer, request.what)

    @asynccontextmanager
    async def _answer(self, request: _Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 2xx answer, its body unread; released at the end."""
        connections = self._opened()
        configuration: Configuration = connections.configuration
        url = f"{configuration.host}{request.path}" + (f"?{urlencode(request.query)}" if request.query else "")
        headers = {"Accept": "application/json", "Content-Type": request.content_type, "User-Agent": self._user_agent}
        if (authorization := await configuration.get_api_key_with_prefix("BearerToken")) is not None:
            headers["Authorization"] = authorization
        with _http_failures(request.what):
            answer = await connections.request(  # type: ignore[no-untyped-call]
                request.method, url, headers, request.body, _request_timeout=request.timeout
            )
            async with cast(aiohttp.ClientResponse, answer.response) as response:
                self._note_date(response)
                if response.status // 100 != 2:
                    raise await _refusal(response, request.what)
                yield response

    def _note_date(self, answer: aiohttp.ClientResponse) -> None:
        if self._on_date is not None and (date := http_date(answer.headers.get("Date", ""))) is not None:
            self._on_date(date)

    def _opened(self) -> Connections:
        if self._connections is None:
            raise RuntimeError("the client is not open: use `async with`")
        return self._connections


@contextmanager
def _http_failures(what: str) -> Iterator[None]:
    """Errors of the HTTP library as errors of the tree."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise Refused(
            f"{what}: the server's certificate is not trusted: {error}", reason="UntrustedCertificate"
        ) from error
    except aiohttp.InvalidURL as error:
        raise Invalid(f"{what}: not an address: {error}", reason="InvalidAddress") from error
    except TimeoutError as error:
        raise Transient(f"{what}: no answer in time", reason="Timeout") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Transient(f"{what}: {error or type(error).__name__}", reason="Unreachable") from error


async def _read(answer: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    """The whole body; Refused beyond `limit` bytes (counted after decompression)."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise Refused(f"{what}: the answer is larger than {limit} bytes", reason="AnswerTooLarge")
    return bytes(body)


async def _lines(answer: aiohttp.ClientResponse, what: str) -> AsyncIterator[bytes]:
    """Complete lines only: what a broken connection cuts off is dropped."""
    buffer = bytearray()
    async for chunk in answer.content.iter_any():
        searched = len(buffer)
        buffer += chunk
        while (end := buffer.find(b"\n", searched)) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            searched = 0
            if line.strip():
                yield line
        if len(buffer) > MAX_EVENT_BYTES:
            raise Refused(f"{what}: an event is larger than {MAX_EVENT_BYTES} bytes", reason="AnswerTooLarge")


def json_object(text: bytes, what: str) -> Json:
    """One JSON object, or Transient: a proxy or a dying server may answer anything."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Transient(f"{what}: the answer is not JSON", reason="MalformedAnswer") from error
    if not isinstance(value, dict):
        raise Transient(f"{what}: the answer is not a JSON object", reason="MalformedAnswer")
    return value


async def _refusal(answer: aiohttp.ClientResponse, what: str) -> HomefedError:
    """The error for an answer other than 2xx; its body may or may not be a Status."""
    try:
        status = json_object(await _read(answer, MAX_STATUS_BYTES, what), what)
    except HomefedError:
        status = {}
    known = status if status.get("kind") == "Status" else None
    return failure(answer.status, known, what, answer.headers.get("Retry-After"))
