"""What Prometheus' and others' APIs tell about targets and configuration, read into facts."""

from __future__ import annotations

from typing import Any

import pytest

from homefed.api.errors import Invalid
from homefed.metering.doctor import _jobs, _scalar, _targets, milliseconds


def target(**changes: Any) -> dict[str, Any]:
    """As Prometheus answers at /api/v1/targets; labels as kube-prometheus-stack gives them."""
    return {
        "discoveredLabels": {
            "__address__": "192.168.1.20:10250",
            "__meta_kubernetes_endpoint_address_target_name": "nuc",
            "__metrics_path__": "/metrics/cadvisor",
        },
        "labels": {"instance": "192.168.1.20:10250", "job": "kubelet", "metrics_path": "/metrics/cadvisor"},
        "scrapePool": "serviceMonitor/monitoring/kubelet/1",
        "scrapeUrl": "https://192.168.1.20:10250/metrics/cadvisor",
        "lastError": "",
        "health": "up",
        "scrapeInterval": "30s",
        "scrapeTimeout": "10s",
    } | changes


def read(*found: dict[str, Any]) -> Any:
    return _targets({"status": "success", "data": {"activeTargets": list(found), "droppedTargets": []}})


def test_a_target_of_the_prometheus_operator_names_its_machine() -> None:
    (one,) = read(target())
    assert (one.job, one.node, one.interval, one.is_cadvisor, one.healthy) == ("kubelet", "nuc", 30_000, True, True)


def test_a_target_through_the_api_server_names_its_machine() -> None:
    """The prometheus-community chart scrapes kubelets so."""
    (one,) = read(target(scrapeUrl="https://kubernetes.default.svc/api/v1/nodes/nuc/proxy/metrics/cadvisor"))
    assert (one.node, one.is_cadvisor) == ("nuc", True)


def test_a_virtual_node_is_told_by_its_label() -> None:
    (one,) = read(target(discoveredLabels={"__meta_kubernetes_node_label_type": "virtual-kubelet"}))
    assert one.is_virtual


def test_a_target_that_was_never_scraped_does_not_fail() -> None:
    (one,) = read(target(health="unknown"))
    assert one.healthy


@pytest.mark.parametrize("answer", [None, {"data": {"activeTargets": []}}, {"data": None}, {"data": {}}])
def test_a_server_that_tells_no_targets(answer: Any) -> None:
    """Thanos answers an empty list where no sidecar tells it; others answer 404."""
    assert _targets(answer) is None


def test_jobs_of_a_configuration() -> None:
    text = "scrape_configs:\n- job_name: a\n  honor_timestamps: false\n- job_name: b\n"
    found = _jobs({"data": {"yaml": text}})
    assert found is not None
    assert [(job.name, job.honor_timestamps) for job in found] == [("a", False), ("b", True)]


@pytest.mark.parametrize("answer", [None, {"data": {"yaml": "["}}, {"data": {"yaml": "[]"}}, {"data": "x"}])
def test_a_configuration_that_cannot_be_read_is_not_known(answer: Any) -> None:
    assert _jobs(answer) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1h", 3_600_000), ("", None), ("x", None)],
)
def test_intervals(text: str, expected: int | None) -> None:
    assert milliseconds(text) == expected


def test_time_is_a_scalar_or_a_vector_of_one() -> None:
    assert _scalar({"data": {"resultType": "scalar", "result": [1.5, "1767225600.25"]}}) == 1_767_225_600_250
    one = {"metric": {}, "value": [1.5, "1767225600"]}
    assert _scalar({"data": {"resultType": "vector", "result": [one]}}) == 1_767_225_600_000
    with pytest.raises(Invalid, match="is this address a Prometheus"):
        _scalar({"data": {"resultType": "vector", "result": []}})
