"""HTTP to a Prometheus, through prometheus-api-client's session.

What the client leaves out is done here: a deadline for the whole answer, retries that are bounded and jittered,
queries in the body of a POST, bounded answers, the server's own words in errors, no redirects, no proxies from the
environment.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests
from prometheus_api_client import PrometheusConnect
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from homefed.api.errors import Forbidden, HomefedError, Invalid, Refused, Transient, Unauthorised
from homefed.metering.access import PrometheusConfig

MAX_ANSWER_BYTES: Final = 64 * 2**20
MAX_WAIT_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 10.0
_CHUNK: Final = 2**16
_ALERT: Final = re.compile(r"_ALERT_(\w*CERT\w*|UNKNOWN_CA|HANDSHAKE_FAILURE|ACCESS_DENIED)")
_jitter = wait_random_exponential(multiplier=0.2, max=5.0)


@dataclass
class Traffic:
    """What went over a connection so far."""

    requests: int = 0
    transferred: int = 0
    """Bytes of answers' bodies as they were sent, compressed where the server does."""
    decoded: int = 0
    """Bytes of the same bodies as JSON."""


class Connection:
    """One Prometheus. Safe to share between tasks: requests go one after another, each in a thread."""

    def __init__(self, config: PrometheusConfig) -> None:
        self._config = config
        self._url = config.url.rstrip("/")
        session = requests.Session()
        session.trust_env = False  # no proxies and no .netrc from the environment
        if config.ca_file is not None:
            session.verify = str(config.ca_file)
        if config.certificate_file is not None and config.key_file is not None:
            session.cert = (str(config.certificate_file), str(config.key_file))
        self._session = session
        self._client = PrometheusConnect(url=self._url, session=session, retry=Retry(total=0), method="POST")
        self._lock = asyncio.Lock()
        self.traffic = Traffic()

    def close(self) -> None:
        self._client.close()

    async def post(self, path: str, form: Mapping[str, str]) -> dict[str, Any]:
        """The answer of POST `path`, which has status success. Errors: those of `get`."""
        return await self._retrying("POST", path, form)

    async def get(self, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The answer of GET `path`, which has status success.

        Errors: Transient where a later attempt can succeed, after all attempts; Unauthorised, Forbidden; Refused
        and Invalid where a person has to change something.
        """
        return await self._retrying("GET", path, parameters or {})

    async def _retrying(self, method: str, path: str, arguments: Mapping[str, str]) -> dict[str, Any]:
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._config.attempts),
            wait=_wait,
            retry=retry_if_exception_type(Transient),
            reraise=True,
        )
        answer: dict[str, Any] = await attempts(self._in_thread, method, path, arguments)
        return answer

    async def _in_thread(self, method: str, path: str, arguments: Mapping[str, str]) -> dict[str, Any]:
        async with self._lock:
            return await asyncio.to_thread(self._request, method, path, arguments)

    def _request(self, method: str, path: str, arguments: Mapping[str, str]) -> dict[str, Any]:
        url = f"{self._url}{path}"
        ends = time.monotonic() + self._config.timeout_seconds
        self.traffic.requests += 1
        try:
            with self._session.request(
                method,
                url,
                params=arguments if method == "GET" else None,
                data=arguments if method == "POST" else None,
                headers={"Accept-Encoding": "gzip", **self._config.authorization()},
                timeout=(min(CONNECT_SECONDS, self._config.timeout_seconds), self._config.timeout_seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = self._bounded(response, ends)
        except requests.exceptions.SSLError as error:
            raise _tls_failure(url, error) from error
        except (requests.exceptions.RequestException, HTTPError, zlib.error) as error:
            if _is_alert(error):
                raise _tls_failure(url, error) from error
            raise Transient(f"Prometheus at {url} does not answer: {error}", reason="PrometheusDown") from error
        except OSError as error:  # requests says so where a file is missing
            raise Refused(f"certificates for Prometheus: {error}", reason="NoCredentials") from error
        if response.status_code != 200:
            raise _failure(url, response, body)
        return _object(body)

    def _bounded(self, response: requests.Response, ends: float) -> bytes:
        """The body, decompressed here, so that a small answer cannot become a large one before anybody looks."""
        compressed = response.headers.get("Content-Encoding") == "gzip"
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if compressed else None
        body = bytearray()
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            self.traffic.transferred += len(chunk)
            body += unpack.decompress(chunk, MAX_ANSWER_BYTES + 1 - len(body)) if unpack is not None else chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise Refused(
                    f"Prometheus answered more than {MAX_ANSWER_BYTES} bytes to one query", reason="AnswerTooLarge"
                )
            if time.monotonic() > ends:
                seconds = self._config.timeout_seconds
                raise Transient(f"Prometheus took more than {seconds:g} s to answer", reason="PrometheusDown")
        if unpack is not None and not unpack.eof:
            raise Transient("Prometheus' answer ends early", reason="PrometheusDown")
        self.traffic.decoded += len(body)
        return bytes(body)


def _wait(state: RetryCallState) -> float:
    """Exponential with full jitter, at least as long as the server asked for, at most half a minute."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after or 0.0 if isinstance(error, Transient) else 0.0
    return min(MAX_WAIT_SECONDS, max(asked, _jitter(state)))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid("Prometheus answered no JSON: is this address a Prometheus?", reason="MalformedAnswer") from error
    if not isinstance(value, dict) or value.get("status") != "success":
        raise Invalid("Prometheus answered without status success", reason="MalformedAnswer")
    return value


def _is_alert(error: Exception) -> bool:
    """Whether the server refused us by a TLS alert. With TLS 1.3 it looks at a client's certificate only after the
    handshake, and what requests then raises is no SSLError."""
    return _ALERT.search(str(error)) is not None


def _tls_failure(url: str, error: Exception) -> Refused:
    if _is_alert(error):
        return Refused(
            f"Prometheus at {url}: client certificate (tls.crt, tls.key) missing or not accepted: {error}",
            reason="ClientCertificateRefused",
        )
    if "EOF" in str(error):
        return Refused(
            f"Prometheus at {url} ended the TLS connection: does it want a client certificate? {error}",
            reason="ClientCertificateRefused",
        )
    return Refused(f"Prometheus at {url}: certificate not trusted: {error}", reason="UntrustedCertificate")


def _failure(url: str, response: requests.Response, body: bytes) -> HomefedError:
    """The error for an answer other than 200, with the server's own words."""
    status = response.status_code
    kind, text = _words(body)
    message = f"Prometheus at {url}: {status}: {text[:500] or 'no explanation given'}"
    if status in (408, 429) or status >= 500 or (kind == "execution" and "rpc error" in text):
        return Transient(message, reason="PrometheusDown", retry_after=_seconds(response.headers.get("Retry-After")))
    kinds: Mapping[int, type[HomefedError]] = {401: Unauthorised, 403: Forbidden, 422: Refused}
    if status == 404:
        message += ": is the path prefix missing in the address?"
    return kinds.get(status, Refused)(message, reason="QueryRefused")


def _words(body: bytes) -> tuple[str, str]:
    """(type, text) of an error. Thanos says with 422 `execution` and `rpc error` that a store did not answer."""
    try:
        answer = json.loads(body)
        return str(answer.get("errorType", "")), str(answer["error"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", body[:200].decode(errors="replace").strip()


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; its other form, a date, is left to our own waiting."""
    return float(text) if text is not None and text.isdecimal() else None
