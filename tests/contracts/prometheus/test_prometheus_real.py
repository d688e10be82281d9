"""Real Prometheus servers of both major versions behind TLS and passwords; the size of answers; shards of real data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prometheus_server import HOUR, T0, outcome

from homefed.api.errors import HomefedError, Refused, Unauthorised
from homefed.core.samples import RawSeries
from homefed.metering import queries
from homefed.metering.prometheus import PrometheusConfig, PrometheusSource
from testbed import unpacked
from testbed.binaries import Binaries
from testbed.metrics import Made, prometheus, serve
from testbed.pki import Pki

# bcrypt of "correct horse", as htpasswd -nB writes it.
BCRYPT = "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"


@pytest.fixture(scope="module", params=["Prometheus 3", "Prometheus 2"])
def program(request: Any, binaries: Binaries) -> Path:
    return binaries.path("prometheus") if request.param == "Prometheus 3" else unpacked.program("prometheus2")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    found = Pki.create(tmp_path_factory.mktemp("pki"), "home", ["127.0.0.1"])
    found.issue_server("prometheus", "prometheus", ["127.0.0.1"])
    found.issue_client("agent", "homefed-agent")
    return found


def reason(found: list[RawSeries] | HomefedError) -> str:
    return found.reason if isinstance(found, HomefedError) else "Answered"


def secret(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


async def answered(url: str, folder: Path | None) -> str:
    """The reason of what a fetch with the credentials of a folder ends with."""
    config = PrometheusConfig.from_folder(url, folder)
    files = {name: getattr(config, name) for name in ("token_file", *_FILES)}
    return reason(await outcome(url, **files))


_FILES = ("username_file", "password_file", "ca_file", "certificate_file", "key_file")


async def test_basic_authentication(program: Path, tmp_path: Path) -> None:
    with serve(program, tmp_path, web={"basic_auth_users": {"homefed": BCRYPT}}) as url:
        right = secret(tmp_path / "right", username="homefed", password="correct horse\n")
        wrong = secret(tmp_path / "wrong", username="homefed", password="wrong")
        assert await answered(url, right) == "Answered"
        refused = await outcome(url)
        assert isinstance(refused, Unauthorised)
        assert await answered(url, wrong) == "QueryRefused"


def mutual_tls(pki: Pki, **more: str) -> dict[str, Any]:
    server = pki.pair("prometheus")
    own = {"cert_file": str(server.cert), "key_file": str(server.key)}
    asked = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": str(pki.ca.cert)}
    return {"tls_server_config": own | asked | more}


async def test_a_private_authority_and_client_certificates(program: Path, tmp_path: Path, pki: Pki) -> None:
    client, ca = pki.pair("agent"), pki.ca.cert.read_text()
    pair = {"tls_crt": client.cert.read_text(), "tls_key": client.key.read_text()}
    with serve(program, tmp_path, web=mutual_tls(pki)) as url:
        assert await answered(url, secret(tmp_path / "all", ca_crt=ca, **pair)) == "Answered"
        assert await answered(url, secret(tmp_path / "no-ca", **pair)) == "UntrustedCertificate"
        # With TLS 1.3 the refusal comes after the handshake, and may be overtaken by the end of the connection.
        assert await answered(url, secret(tmp_path / "no-pair", ca_crt=ca)) != "Answered"


async def test_a_missing_client_certificate_is_told(program: Path, tmp_path: Path, pki: Pki) -> None:
    with serve(program, tmp_path, web=mutual_tls(pki, max_version="TLS12")) as url:
        found = await outcome(url, ca_file=pki.ca.cert)
    assert isinstance(found, Refused)
    assert found.reason == "ClientCertificateRefused"
    assert "tls.crt" in found.message


async def test_a_certificate_file_that_is_gone_is_named(program: Path, tmp_path: Path, pki: Pki) -> None:
    found = await outcome("https://127.0.0.1:9", ca_file=tmp_path / "ca.crt")
    assert isinstance(found, Refused)
    assert "ca.crt" in found.message


# --- how much is asked and answered


def labels(number: int) -> dict[str, str]:
    """About as long as kube-prometheus-stack's are on k3s."""
    uid = UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC834) % 2**128)
    cgroup = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{str(uid).replace('-', '_')}.slice"
    return {
        "namespace": "homefed-guests",
        "pod": f"hf-{uid}",
        "container": "app",
        "id": f"{cgroup}/cri-containerd-{number:064x}.scope",
        "image": "registry.example.org/lab/simulation:1.4.2",
        "name": f"{number:064x}",
        "endpoint": "https-metrics",
        "instance": "192.168.1.20:10250",
        "job": "kubelet",
        "metrics_path": "/metrics/cadvisor",
        "node": "nuc",
        "service": "kube-prometheus-stack-kubelet",
    }


def containers(amount: int, interval: float) -> Iterator[Made]:
    """CPU counters with all digits that cAdvisor gives, at its own times."""
    times = [T0 - 60 + 0.137 + interval * step for step in range(int(3780 / interval))]
    for number in range(amount):
        rate = 0.05 + number / 997
        points = [(second + number / 1000, round(rate * (second - T0 + 9999.987654321), 9)) for second in times]
        yield Made("container_cpu_usage_seconds_total", labels(number), points)
        yield Made("container_start_time_seconds", labels(number), [(second, T0 - 86_400.0) for second in times])


@pytest.fixture(scope="module")
def two_hundred(program: Path, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    made = list(containers(200, 30.0))
    with prometheus(binaries, tmp_path_factory.mktemp("two-hundred"), made, program=program) as url:
        yield url


@contextmanager
def source_of(url: str) -> Iterator[PrometheusSource]:
    source = PrometheusSource(PrometheusConfig(url))
    try:
        yield source
    finally:
        source.close()


async def test_a_metric_hour_of_200_containers_is_less_than_a_megabyte_of_json(
    two_hundred: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded, as the agent holds it; transferred it is compressed. One hour at 30 s, without grace or lookback."""
    monkeypatch.setattr("homefed.metering.prometheus.LOOKBACK_SECONDS", 0)
    only_cpu = {"cpu": queries.QUERIES["cpu"]}
    monkeypatch.setattr("homefed.metering.prometheus.QUERIES", only_cpu)
    with source_of(two_hundred) as source:
        found = await source.fetch(HOUR, at=HOUR.end, offset_ms=0)
        traffic = source.traffic
    assert len(found) == 200
    assert sum(len(one.samples) for one in found) == 200 * 120
    print(f"200 containers, one metric, one hour at 30 s: {traffic.decoded} bytes, {traffic.transferred} transferred")
    assert 500_000 < traffic.decoded < 1_000_000
    assert traffic.transferred < traffic.decoded / 2
    assert traffic.requests == 2


async def test_shards_answer_together_what_one_query_answers(two_hundred: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(series: RawSeries) -> tuple[str, str]:
        return series.metric, series.labels["pod"]

    with source_of(two_hundred) as source:
        whole = await source.fetch(HOUR, at=HOUR.end, offset_ms=0)
        before = source.traffic.requests
        monkeypatch.setattr(queries, "SAMPLES_PER_ANSWER", 2_000)
        parts = await source.fetch(HOUR, at=HOUR.end, offset_ms=0)
        asked = source.traffic.requests - before
    assert before == 1 + len(queries.QUERIES)
    assert asked == 1 + 16 * len(queries.QUERIES)
    assert sorted(parts, key=key) == sorted(whole, key=key)
