"""Raw samples of guest pods from a Prometheus, through prometheus-api-client's session.

One instant query of a range vector per metric: the samples as they were scraped, never resampled. The number of queries
is constant per window. What the client leaves out is done here: a timeout, refusal of partial answers (`warnings`),
queries in the body of a POST, bounded answers, the server's own words in errors, no redirects.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import requests
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from homefed.api.errors import Forbidden, HomefedError, Invalid, Refused, Transient, Unauthorised
from homefed.api.names import GUESTS_NAMESPACE
from homefed.core.samples import Metric, RawSeries
from homefed.core.windows import Window

MAX_ANSWER_BYTES: Final = 256 * 2**20
LOOKBACK_SECONDS: Final = 60
_CHUNK: Final = 2**20

_QUERIES: Final[Mapping[Metric, tuple[str, str]]] = {
    "cpu": ("container_cpu_usage_seconds_total", 'container!="",container!="POD"'),
    "memory": ("container_memory_working_set_bytes", 'container!="",container!="POD"'),
    "network-receive": ("container_network_receive_bytes_total", 'interface="eth0"'),
    "network-transmit": ("container_network_transmit_bytes_total", 'interface="eth0"'),
    "start": ("container_start_time_seconds", ""),
}
"""Metric → its name in cAdvisor, and the matchers beside namespace and pod."""


class SampleSource(Protocol):
    """Where samples come from."""

    async def fetch(self, window: Window, *, at: int, offset_ms: int) -> list[RawSeries]:
        """All series of guest pods around (start, end], as known at `at` (seconds).

        Window and `at` are hub time, `offset_ms` is hub's clock − home's clock, sample times are the home's. Errors:
        Transient where a later attempt can succeed, Refused where a person has to change something; never a part.
        """
        ...


@dataclass(frozen=True)
class PrometheusConfig:
    url: str
    """http(s)://host:port, with a path prefix where there is one."""
    token_file: Path | None = None
    """A bearer token, read anew for every query."""
    ca_file: Path | None = None
    """PEM; None: the system's."""
    timeout_seconds: float = 30.0
    namespace: str = GUESTS_NAMESPACE


class PrometheusSource:
    """A SampleSource. Safe to share between tasks: queries run one after another in a thread."""

    def __init__(self, config: PrometheusConfig) -> None:
        """Raises Invalid where the address is none."""
        if not config.url.startswith(("http://", "https://")):
            raise Invalid(
                f"Prometheus address {config.url!r}: must start with http:// or https://", reason="InvalidAddress"
            )
        self._config = config
        session = requests.Session()
        session.trust_env = False  # no proxies and no .netrc from the environment
        if config.ca_file is not None:
            session.verify = str(config.ca_file)
        self._connection = PrometheusConnect(
            url=config.url.rstrip("/"), session=session, retry=Retry(total=0), method="POST"
        )

    def close(self) -> None:
        self._connection.close()

    async def fetch(self, window: Window, *, at: int, offset_ms: int) -> list[RawSeries]:
        return await asyncio.to_thread(self._fetch, window, at, offset_ms)

    def _fetch(self, window: Window, at: int, offset_ms: int) -> list[RawSeries]:
        moment = at * 1000 - offset_ms
        seconds = at - window.start + LOOKBACK_SECONDS
        found: list[RawSeries] = []
        for metric in _QUERIES:
            for series in self._matrix(self.query_text(metric, seconds), moment):
                found.append(_series(metric, series))
        return found

    def query_text(self, metric: Metric, seconds: int) -> str:
        """PromQL: a range vector of this metric of all guest pods."""
        name, more = _QUERIES[metric]
        matchers = f'namespace="{self._config.namespace}",pod=~"hf-.+"' + (f",{more}" if more else "")
        return f"{name}{{{matchers}}}[{seconds}s]"

    def _matrix(self, query: str, moment_ms: int) -> list[Any]:
        answer = self._post({"query": query, "time": f"{moment_ms / 1000:.3f}"})
        warnings = answer.get("warnings")
        if warnings:
            text = "; ".join(map(str, warnings))[:500]
            raise Refused(f"Prometheus answered in part only: {text}", reason="PartialAnswer")
        data = answer.get("data")
        if not isinstance(data, dict) or data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
            raise Invalid(
                "Prometheus answered no range vector: is this address a Prometheus?", reason="MalformedAnswer"
            )
        return list(data["result"])

    def _post(self, form: Mapping[str, str]) -> dict[str, Any]:
        url = f"{self._connection.url}/api/v1/query"
        try:
            with self._connection._session.request(
                "POST",
                url,
                data=form,
                headers=self._headers(),
                timeout=self._config.timeout_seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = _bounded(response)
        except requests.exceptions.SSLError as error:
            raise Refused(
                f"Prometheus at {url}: certificate not trusted: {error}", reason="UntrustedCertificate"
            ) from error
        except requests.exceptions.RequestException as error:
            raise Transient(f"Prometheus at {url} does not answer: {error}", reason="PrometheusDown") from error
        if response.status_code != 200:
            raise _failure(url, response.status_code, body)
        return _object(body)

    def _headers(self) -> dict[str, str]:
        path = self._config.token_file
        if path is None:
            return {}
        try:
            return {"Authorization": f"Bearer {path.read_text().strip()}"}
        except OSError as error:
            raise Refused(f"token for Prometheus: {error}", reason="NoToken") from error


def _bounded(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise Refused(f"Prometheus answered more than {MAX_ANSWER_BYTES} bytes", reason="AnswerTooLarge")
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid("Prometheus answered no JSON: is this address a Prometheus?", reason="MalformedAnswer") from error
    if not isinstance(value, dict) or value.get("status") != "success":
        raise Invalid("Prometheus answered without status success", reason="MalformedAnswer")
    return value


def _failure(url: str, status: int, body: bytes) -> HomefedError:
    """The error for an answer other than 200, with the server's own words."""
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body[:200].decode(errors="replace").strip()
    message = f"Prometheus at {url}: {status}: {text[:500] or 'no explanation given'}"
    if status in (408, 429) or status >= 500:
        return Transient(message, reason="PrometheusDown")
    kinds: Mapping[int, type[HomefedError]] = {401: Unauthorised, 403: Forbidden}
    return kinds.get(status, Refused)(message, reason="QueryRefused")


def _series(metric: Metric, series: Any) -> RawSeries:
    """Sample times arrive as seconds with three decimals."""
    try:
        labels = {str(name): str(value) for name, value in series["metric"].items()}
        samples = [(round(float(time) * 1000), str(value)) for time, value in series["values"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Invalid(f"Prometheus answered a malformed series: {error}", reason="MalformedAnswer") from error
    return RawSeries(metric, labels, samples)
