"""The meter's source against a real Prometheus, and against servers that answer what a home's may answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from homefed.api.errors import Forbidden, HomefedError, Invalid, Refused, Transient
from homefed.core.metering import Guest, Settings, Span, measure
from homefed.core.samples import intake
from homefed.core.windows import Window
from homefed.metering.prometheus import PrometheusConfig, PrometheusSource
from testbed import ports
from testbed.binaries import Binaries
from testbed.metrics import Made, prometheus

T0 = 1_767_225_600
HOUR = Window(T0, T0 + 3600)
UID = "11111111-2222-3333-4444-555555555555"
MIB = 2**20
GRACE = 30


def container(name: str, points: Sequence[tuple[float, float]], **labels: str) -> Made:
    own = {"namespace": "homefed-guests", "pod": f"hf-{UID}", "container": "app", "id": "/kubepods/a", **labels}
    return Made(name, own, points)


def sandbox(name: str, points: Sequence[tuple[float, float]]) -> Made:
    return container(name, points, container="", id="/kubepods/sandbox", interface="eth0")


def world() -> list[Made]:
    """One hour of a pod: 0.25 cores, restarted once; 64 MiB; 1000 bytes/s in; and what must not be counted."""
    seconds = [T0 + s for s in range(-60, 3661, 15)]
    first = [(s, 0.25 * (s - T0 + 60)) for s in seconds if s < T0 + 1800]
    second = [(s, 0.25 * (s - T0 - 1795)) for s in seconds if s >= T0 + 1800]
    return [
        container("container_cpu_usage_seconds_total", first),
        container("container_cpu_usage_seconds_total", second, id="/kubepods/b"),
        container("container_start_time_seconds", [(s, T0 - 60) for s, _ in first]),
        container("container_start_time_seconds", [(s, T0 + 1795) for s, _ in second], id="/kubepods/b"),
        container("container_memory_working_set_bytes", [(s, 64.0 * MIB) for s in seconds]),
        sandbox("container_network_receive_bytes_total", [(s, 1000.0 * (s - T0 + 60)) for s in seconds]),
        container("container_cpu_usage_seconds_total", [(s, 9.0 * s) for s in seconds], namespace="default"),
        container("container_cpu_usage_seconds_total", [(s, 9.0 * s) for s in seconds], pod="other", id="/x"),
        container("container_cpu_usage_seconds_total", [(s, 9.0 * s) for s in seconds], container="", id="/kubepods"),
    ]


@pytest.fixture(scope="module")
def address(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(binaries, tmp_path_factory.mktemp("prometheus"), world()) as url:
        yield url


async def amounts(url: str, window: Window = HOUR) -> dict[str, int]:
    source = PrometheusSource(PrometheusConfig(url))
    raw = await source.fetch(window, at=window.end + GRACE, offset_ms=0)
    taken = intake(raw, {UID}, window, now_ms=(window.end + GRACE) * 1000, offset_ms=0)
    guest = Guest(UID, {"cpu": 1000, "memory": 2**30}, Span((T0 - 60) * 1000), {"app": Span((T0 - 60) * 1000)})
    source.close()
    return {line.resource: int(line.amount) for line in measure(window, [guest], taken, [], Settings(15_000)).lines}


async def test_a_window_read_from_a_real_prometheus_is_the_truth(address: str) -> None:
    """First reading of a pod: its counters since their start; the restarted container begins at 0."""
    found = await amounts(address)
    assert found["cpu"] == 250_000 * (1785 + 60) + 250_000 * (3600 - 1795)
    assert found["memory"] == 64 * 1024 * (3600 - 15)
    assert found["network-receive"] == 1000 * 3660
    assert found["network-transmit"] == 0


async def test_the_number_of_queries_does_not_depend_on_the_number_of_pods(address: str) -> None:
    source = PrometheusSource(PrometheusConfig(address))
    asked: list[dict[str, str]] = []
    post = source._post
    source._post = lambda form: asked.append(dict(form)) or post(form)  # type: ignore[method-assign, func-returns-value]
    await source.fetch(HOUR, at=HOUR.end + GRACE, offset_ms=0)
    source.close()
    assert len(asked) == 5
    assert all(UID not in form["query"] for form in asked)


async def test_an_hour_without_samples_is_an_empty_answer_and_no_error(address: str) -> None:
    source = PrometheusSource(PrometheusConfig(address))
    long_ago = Window(T0 - 7 * 86_400, T0 - 7 * 86_400 + 3600)
    assert await source.fetch(long_ago, at=long_ago.end, offset_ms=0) == []
    source.close()


async def test_a_query_that_prometheus_refuses_is_told_in_its_own_words(address: str) -> None:
    source = PrometheusSource(PrometheusConfig(address, namespace='"'))
    with pytest.raises(Refused, match="parse error"):
        await source.fetch(HOUR, at=HOUR.end, offset_ms=0)
    source.close()


@contextmanager
def answering(status: int, body: str, headers: dict[str, str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every POST so; and the Authorization headers that it saw."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def matrix(result: str, more: str = "") -> str:
    return f'{{"status":"success"{more},"data":{{"resultType":"matrix","result":{result}}}}}'


async def outcome(url: str, **options: object) -> object:
    source = PrometheusSource(PrometheusConfig(url, **options))  # type: ignore[arg-type]
    try:
        return await source.fetch(HOUR, at=HOUR.end, offset_ms=0)
    except HomefedError as error:
        return error
    finally:
        source.close()


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (200, matrix("[]", ',"warnings":["remote store: deadline exceeded"]'), Refused, "PartialAnswer"),
        (200, "<html>login</html>", Invalid, "MalformedAnswer"),
        (200, '{"status":"success","data":{"resultType":"vector","result":[]}}', Invalid, "MalformedAnswer"),
        (200, matrix('[{"metric":{},"values":[["when","1"]]}]'), Invalid, "MalformedAnswer"),
        (503, '{"status":"error","error":"TSDB not ready"}', Transient, "PrometheusDown"),
        (429, "slow down", Transient, "PrometheusDown"),
        (403, "no", Forbidden, "QueryRefused"),
        (302, "", Refused, "QueryRefused"),
    ],
)
async def test_what_is_no_whole_answer_is_refused_with_a_reason(
    status: int, body: str, kind: type[HomefedError], reason: str
) -> None:
    with answering(status, body, {"Location": "http://127.0.0.1:9/"}) as (url, seen):
        found = await outcome(url)
    assert isinstance(found, kind)
    assert found.reason == reason
    assert len(seen) == 1


async def test_the_servers_own_words_are_kept() -> None:
    with answering(503, '{"status":"error","error":"TSDB not ready"}') as (url, _):
        found = await outcome(url)
    assert "TSDB not ready" in str(found)


async def test_a_prometheus_that_is_down_is_waited_for() -> None:
    (port,) = ports.reserve(1)
    found = await outcome(f"http://127.0.0.1:{port}")
    ports.release([port])
    assert isinstance(found, Transient)
    assert found.reason == "PrometheusDown"


async def test_the_token_is_read_anew_for_every_query(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with answering(200, matrix("[]")) as (url, seen):
        assert await outcome(url, token_file=token) == []
        token.write_text("second\n")
        assert await outcome(url, token_file=token) == []
    assert set(seen[:5]) == {"Bearer first"}
    assert set(seen[5:]) == {"Bearer second"}


async def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    found = await outcome("http://127.0.0.1:9", token_file=tmp_path / "gone")
    assert isinstance(found, Refused)
    assert "gone" in found.message


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(Invalid, match="must start with http"):
        PrometheusSource(PrometheusConfig("prometheus:9090"))
