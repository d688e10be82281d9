"""The meter's source against servers that answer what a home's may answer: wrong, in part, late, in other dialects."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_server import HOUR, T0, Answer, Form, always, answering, is_counting, matrix, outcome, vector, whole

from homefed.api.errors import Forbidden, HomefedError, Invalid, Refused, Transient, Unauthorised
from homefed.metering import connection
from homefed.metering.prometheus import PrometheusConfig
from testbed import ports

UID = "1e1c2c5c-7a35-4c56-9f0c-2f4f6f8f1a2b"


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (200, "<html>login</html>", Invalid, "MalformedAnswer"),
        (200, '{"status":"success","data":{"resultType":"vector","result":[]}}', Invalid, "MalformedAnswer"),
        (200, matrix('[{"metric":{},"values":[["when","1"]]}]'), Invalid, "MalformedAnswer"),
        (200, matrix(f'[{{"metric":{{}},"values":[[{T0},1.5]]}}]'), Invalid, "MalformedAnswer"),
        (503, '{"status":"error","error":"TSDB not ready"}', Transient, "PrometheusDown"),
        (429, "slow down", Transient, "PrometheusDown"),
        (401, "Unauthorized", Unauthorised, "QueryRefused"),
        (403, "no", Forbidden, "QueryRefused"),
        (302, "", Refused, "QueryRefused"),
        (404, "404 page not found", Refused, "QueryRefused"),
        (422, '{"status":"error","errorType":"execution","error":"too many samples"}', Refused, "QueryRefused"),
    ],
)
async def test_what_is_no_whole_answer_is_refused_with_a_reason(
    status: int, body: str, kind: type[HomefedError], reason: str
) -> None:
    with answering(always(status, body, {"Location": "http://127.0.0.1:9/"})) as (url, _):
        found = await outcome(url)
    assert isinstance(found, kind)
    assert found.reason == reason


async def test_the_servers_own_words_are_kept() -> None:
    with answering(always(503, '{"status":"error","error":"TSDB not ready"}')) as (url, _):
        found = await outcome(url)
    assert "TSDB not ready" in str(found)


async def test_an_answer_that_is_too_large_is_refused_before_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1000)
    with answering(always(200, matrix() + " " * 2000)) as (url, _):
        found = await outcome(url)
    assert isinstance(found, Refused)
    assert found.reason == "AnswerTooLarge"


# --- retries


def failing(times: int, status: int = 503, headers: dict[str, str] | None = None) -> Any:
    numbers = count()
    return lambda form: Answer(status, "try later", headers or {}) if next(numbers) < times else whole(form)


async def test_a_server_that_recovers_is_asked_again() -> None:
    with answering(failing(2)) as (url, seen):
        assert await outcome(url, attempts=3) == []
    assert seen.forms[0] == seen.forms[1] == seen.forms[2]
    assert len(seen.forms) == 2 + 6


async def test_attempts_are_bounded() -> None:
    with answering(failing(1000)) as (url, seen):
        found = await outcome(url, attempts=3)
    assert isinstance(found, Transient)
    assert len(seen.forms) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_what_a_person_has_to_change_is_asked_once(status: int) -> None:
    with answering(failing(1000, status)) as (url, seen):
        assert isinstance(await outcome(url, attempts=3), Refused)
    assert len(seen.forms) == 1


async def test_a_server_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_WAIT_SECONDS", 0.01)
    with answering(failing(1, 429, {"Retry-After": "7200"})) as (url, seen):
        assert await outcome(url, attempts=2) == []
    assert len(seen.forms) == 1 + 6


async def test_a_prometheus_that_is_down_is_waited_for() -> None:
    (port,) = ports.reserve(1)
    found = await outcome(f"http://127.0.0.1:{port}")
    ports.release([port])
    assert isinstance(found, Transient)
    assert found.reason == "PrometheusDown"


# --- other answers than Prometheus'

LABELS = {
    "__name__": "container_memory_working_set_bytes",
    "container": "app",
    "id": "/kubepods.slice/kubepods-burstable.slice/cri-containerd-0aa1.scope",
    "image": "docker.io/library/busybox:1.36",
    "name": "0aa1",
    "namespace": "homefed-guests",
    "pod": f"hf-{UID}",
}
# As kube-prometheus-stack's ServiceMonitor for the kubelet labels it: honorLabels, metrics_path, endpoint, service.
STACK = LABELS | {
    "endpoint": "https-metrics",
    "instance": "192.168.1.20:10250",
    "job": "kubelet",
    "metrics_path": "/metrics/cadvisor",
    "node": "nuc",
    "prometheus": "monitoring/kube-prometheus-stack-prometheus",
    "prometheus_replica": "prometheus-kube-prometheus-stack-prometheus-0",
    "service": "kube-prometheus-stack-kubelet",
}


def series(labels: dict[str, str]) -> dict[str, Any]:
    return {"metric": labels, "values": [[T0 + 15.123, "104857600"], [T0 + 30.4, "104857601"]]}


def document(*found: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": list(found)}, **more}


# Written after the projects' documented formats: Prometheus' HTTP API (warnings, and infos since 3.0), VictoriaMetrics'
# url-examples and cluster availability (isPartial, stats), Thanos' query component (warnings).
WHOLE: dict[str, dict[str, Any]] = {
    "Prometheus 2": document(series(LABELS | {"job": "cadvisor", "instance": "nuc"})),
    "Prometheus 3 with infos": document(series(LABELS), infos=["PromQL info: metric might not be a counter"]),
    "kube-prometheus-stack": document(series(STACK)),
    "VictoriaMetrics, single node": document(series(LABELS)),
    "VictoriaMetrics, cluster": document(
        series(LABELS), isPartial=False, stats={"seriesFetched": "1", "executionTimeMsec": 3}
    ),
    "Thanos, deduplicated": document(series(STACK | {"cluster": "home"}), warnings=[]),
    "Thanos with a query's analysis": document(series(STACK), analysis={"name": "", "executionTime": "0s"}),
}
PARTIAL: dict[str, dict[str, Any]] = {
    "Prometheus, remote read failed": document(series(LABELS), warnings=["remote_read: context deadline exceeded"]),
    "VictoriaMetrics, a vmstorage is away": document(
        series(LABELS), isPartial=True, stats={"seriesFetched": "1", "executionTimeMsec": 3}
    ),
    "Thanos, a store is away": document(
        series(STACK), warnings=["receive series from Addr: 10.0.0.7:10901: rpc error: code = Unavailable"]
    ),
    "Thanos, within data": {
        "status": "success",
        "data": {"resultType": "matrix", "result": [], "warnings": ["No StoreAPIs matched for this query"]},
    },
}


def memory_only(body: str) -> Any:
    def script(form: Form) -> Answer:
        if is_counting(form):
            return Answer(200, vector("2"))
        return Answer(200, body if "working_set" in form["query"] else matrix())

    return script


@pytest.mark.parametrize("dialect", WHOLE)
async def test_whole_answers_of_other_projects_are_read(dialect: str) -> None:
    with answering(memory_only(json.dumps(WHOLE[dialect]))) as (url, _):
        found = await outcome(url)
    assert isinstance(found, list)
    (one,) = found
    assert one.metric == "memory"
    assert one.labels["pod"] == f"hf-{UID}"
    assert one.samples == [(T0 * 1000 + 15_123, "104857600"), (T0 * 1000 + 30_400, "104857601")]


@pytest.mark.parametrize("dialect", PARTIAL)
async def test_partial_answers_are_refused_in_each_dialect(dialect: str) -> None:
    with answering(memory_only(json.dumps(PARTIAL[dialect]))) as (url, _):
        found = await outcome(url)
    assert isinstance(found, Refused)
    assert found.reason == "PartialAnswer"


async def test_a_part_is_refused_already_where_samples_are_counted() -> None:
    partial = Answer(200, vector("2", ',"isPartial":true'))
    with answering(lambda form: partial if is_counting(form) else whole(form)) as (url, seen):
        found = await outcome(url)
    assert isinstance(found, Refused)
    assert len(seen.forms) == 1


async def test_whole_and_raw_answers_are_asked_for() -> None:
    """Thanos and VictoriaMetrics then fail where a store is away, and Thanos gives no downsampled data."""
    with answering(whole) as (url, seen):
        await outcome(url)
    for form in seen.forms:
        assert form["partial_response"] == "false"
        assert form["deny_partial_response"] == "1"
        assert form["max_source_resolution"] == "0"
        assert form["timeout"] == "30s"
    assert all("gzip" in encoding for encoding in seen.encodings)


async def test_a_store_of_thanos_that_is_away_is_waited_for() -> None:
    body = {
        "status": "error",
        "errorType": "execution",
        "error": "expanding series: receive series from Addr: 10.0.0.7:10901: rpc error: code = Unavailable",
    }
    with answering(always(422, json.dumps(body))) as (url, _):
        found = await outcome(url)
    assert isinstance(found, Transient)


async def test_the_kubelets_resource_path_beside_cadvisor_counts_once() -> None:
    """Both paths name container_cpu_usage_seconds_total; /metrics/resource has no container ids."""
    without_id = {
        name: value for name, value in LABELS.items() if name in ("__name__", "container", "namespace", "pod")
    }
    body = json.dumps(document(series(LABELS), series(without_id | {"job": "resource"})))
    with answering(memory_only(body)) as (url, _):
        found = await outcome(url)
    assert isinstance(found, list)
    assert [one.labels.get("id") for one in found] == [LABELS["id"]]


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
async def test_values_that_are_no_numbers_reach_the_gates_as_they_are(value: str) -> None:
    body = json.dumps(document({"metric": LABELS, "values": [[T0, value]]}))
    with answering(memory_only(body)) as (url, _):
        found = await outcome(url)
    assert isinstance(found, list)
    assert found[0].samples == [(T0 * 1000, value)]


# --- queries and shards


@pytest.mark.parametrize(("samples", "shards"), [(0, 1), (50_000, 1), (50_001, 2), (790_000, 16), (900_000_000, 256)])
async def test_the_number_of_queries_is_that_of_shards_times_metrics(samples: int, shards: int) -> None:
    def script(form: Form) -> Answer:
        return Answer(200, vector(str(samples)) if is_counting(form) else matrix())

    with answering(script) as (url, seen):
        assert await outcome(url) == []
    assert len(seen.forms) == 1 + 5 * shards
    assert all(UID not in form["query"] for form in seen.forms)


async def test_moments_are_those_of_the_homes_clock() -> None:
    with answering(whole) as (url, seen):
        await outcome(url)
    assert {form["time"] for form in seen.forms} == {f"{HOUR.end}.000"}
    assert all("[3660s]" in form["query"] for form in seen.forms)


# --- credentials


async def test_the_token_is_read_anew_for_every_query(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with answering(whole) as (url, seen):
        assert await outcome(url, token_file=token) == []
        token.write_text("second\n")
        assert await outcome(url, token_file=token) == []
    assert set(seen.authorization[:6]) == {"Bearer first"}
    assert set(seen.authorization[6:]) == {"Bearer second"}


async def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    found = await outcome("http://127.0.0.1:9", token_file=tmp_path / "gone" / "token")
    assert isinstance(found, Refused)
    assert "gone" in found.message
    assert found.reason == "NoToken"


def folder_with(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("x")
    return folder


def test_a_folder_decides_which_credentials_are_used(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "username", "password", "ca.crt", "notes")
    found = PrometheusConfig.from_folder("https://prometheus.example", folder)
    assert found.username_file == folder / "username"
    assert found.ca_file == folder / "ca.crt"
    assert found.token_file is None
    assert found.certificate_file is None


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("username",), "`username` is there, `password` is not"),
        (("tls.key",), "`tls.key` is there, `tls.crt` is not"),
        (("token", "username", "password"), "not both"),
    ],
)
def test_credentials_that_contradict_each_other_are_refused(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    with pytest.raises(Invalid, match=told):
        PrometheusConfig.from_folder("https://prometheus.example", folder_with(tmp_path, *names))


@pytest.mark.parametrize("url", ["prometheus:9090", "ftp://x", "http://", "https://me:secret@prometheus.example"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(Invalid, match="Prometheus address") as refused:
        PrometheusConfig(url)
    assert "secret" not in refused.value.message
