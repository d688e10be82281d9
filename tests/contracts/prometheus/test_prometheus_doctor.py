"""`homefed doctor meter` on real Prometheus servers that scrape a kubelet's metrics in right and wrong ways.

All servers run side by side, since each has to scrape for a while before there is something to judge.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from click.testing import CliRunner
from kubelet_metrics import NAMESPACE, POD, Behaviour, kubelet

from homefed.cli.main import cli
from homefed.core.meter_advice import Advice
from homefed.core.meter_doctor import examine
from homefed.core.meter_facts import Guest, Node
from homefed.metering.access import PrometheusConfig
from homefed.metering.connection import Connection
from homefed.metering.doctor import gather
from testbed import ports, unpacked
from testbed.binaries import Binaries
from testbed.metrics import serve

INTERVAL = 2
WITHIN_S = 120.0
Json = dict[str, Any]


def job(address: str, name: str = "cadvisor", **changes: Any) -> Json:
    target: Json = {"targets": [address], "labels": {"node": "nuc"}}
    return {"job_name": name, "metrics_path": "/metrics/cadvisor", "static_configs": [target], **changes}


def targeted(address: str, **labels: str) -> Json:
    return job(address, static_configs=[{"targets": [address], "labels": {"node": "nuc", **labels}}])


def relabelled(address: str, **rule: Any) -> list[Json]:
    return [job(address, metric_relabel_configs=[rule])]


@dataclass(frozen=True)
class Way:
    """A way of scraping, and the codes that it must be told: those that must change, and notes."""

    jobs: Callable[[str], list[Json]] = lambda address: [job(address)]
    must: frozenset[str] = frozenset()
    notes: frozenset[str] = frozenset()
    behaviour: Behaviour = field(default_factory=Behaviour)
    program: str = "prometheus"
    tolerated: frozenset[str] = frozenset()
    """What may be seen or not, as it comes."""


def of(*codes: str) -> frozenset[str]:
    return frozenset(codes)


WAYS: dict[str, Way] = {
    "right": Way(),
    "right, Prometheus 2.42": Way(program="prometheus2"),
    "two jobs": Way(lambda a: [job(a), job(a, "kubelet")], of("DuplicateSource")),
    "two jobs, Prometheus 2.42": Way(lambda a: [job(a), job(a, "x")], of("DuplicateSource"), program="prometheus2"),
    "beside the resource path": Way(
        lambda a: [job(a), job(a, "resource", metrics_path="/metrics/resource")], notes=of("ResourcePathScraped")
    ),
    "timestamps not honoured": Way(lambda a: [job(a, honor_timestamps=False)], of("IgnoredTimestamps")),
    "id dropped": Way(lambda a: relabelled(a, action="labeldrop", regex="id|name"), of("DroppedLabel")),
    "a Service's labels": Way(lambda a: [targeted(a, namespace="kube-system", pod="kubelet")], of("RenamedLabel")),
    "only CPU kept": Way(
        lambda a: relabelled(a, source_labels=["__name__"], regex="container_cpu.*|up", action="keep"),
        of("MissingMetric"),
    ),
    "guests dropped": Way(
        lambda a: relabelled(a, source_labels=["namespace"], regex=NAMESPACE, action="drop"),
        of("GuestsNotSeen", "MissingMetric", "DroppedLabel"),
    ),
    "another interval": Way(lambda a: [job(a, scrape_interval="5s", scrape_timeout="5s")], of("WrongInterval")),
    "nobody listens": Way(lambda a: [job(f"127.0.0.1:{CLOSED}")], of("ScrapeFails", "MissingScrapes", "GuestsNotSeen")),
    "a virtual node too": Way(
        lambda a: [job(a), job("127.0.0.1:1", "virtual", static_configs=[virtual("127.0.0.1:1")])],
        of("ScrapesVirtualNode"),
    ),
    "cAdvisor stands still": Way(must=of("StaleSamples"), behaviour=Behaviour(late_s=400.0)),
    "a machine in another time zone": Way(must=of("WrongTimeZone"), behaviour=Behaviour(ahead_s=-2700.0)),
    "a machine two hours ahead": Way(
        must=of("SamplesOutOfBounds"), behaviour=Behaviour(ahead_s=7200.0), tolerated=of("NothingToRead")
    ),
    "a machine's clock is ahead": Way(must=of("MachineClock"), behaviour=Behaviour(ahead_s=60.0)),
    "every third scrape fails": Way(
        must=of("MissingScrapes"), behaviour=Behaviour(fails_every=3), tolerated=of("ScrapeFails")
    ),
    "nothing of cAdvisor": Way(
        lambda a: [job(a, "resource", metrics_path="/metrics/resource")],
        of("NoCadvisor"),
        tolerated=of("DroppedLabel", "MissingMetric"),
    ),
}
CLOSED = 9


def virtual(address: str) -> Json:
    return {"targets": [address], "labels": {"__meta_kubernetes_node_label_type": "virtual-kubelet", "node": "hf-x"}}


@pytest.fixture(scope="module")
def addresses(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    found = {}
    with ExitStack() as stack:
        for number, (name, way) in enumerate(WAYS.items()):
            address = stack.enter_context(kubelet(way.behaviour))
            config = {
                "global": {"scrape_interval": f"{INTERVAL}s", "scrape_timeout": f"{INTERVAL}s"},
                "scrape_configs": way.jobs(address),
            }
            program = unpacked.program(way.program) if way.program == "prometheus2" else binaries.path(way.program)
            folder = tmp_path_factory.mktemp(f"way-{number}")
            found[name] = stack.enter_context(serve(program, folder, config))
        yield found


async def examined(url: str) -> list[Advice]:
    connection = Connection(PrometheusConfig(url))
    long_ago = round(time.time() * 1000) - 600_000
    try:
        facts = await gather(
            connection,
            interval_seconds=INTERVAL,
            namespace=NAMESPACE,
            nodes=[Node("nuc"), Node("hf-x", is_virtual=True)],
            guests=[Guest(POD, "nuc", long_ago)],
        )
    finally:
        connection.close()
    return examine(facts)


def fits(way: Way, advice: list[Advice]) -> bool:
    must = {one.code for one in advice if one.must} - way.tolerated
    notes = {one.code for one in advice if not one.must} - way.tolerated
    return must == way.must and notes == way.notes


@pytest.mark.parametrize("name", WAYS)
async def test_each_way_of_scraping_is_told_what_to_change(addresses: dict[str, str], name: str) -> None:
    way, ends = WAYS[name], time.monotonic() + WITHIN_S
    advice = await examined(addresses[name])
    while not (fits(way, advice) and await scraped_often(addresses[name])) and time.monotonic() < ends:
        await asyncio.sleep(0.5)
        advice = await examined(addresses[name])
    assert fits(way, advice), advice
    assert all(one.changes for one in advice if one.must)


async def scraped_often(url: str) -> bool:
    """So that what is right is not merely too young to be wrong."""
    connection = Connection(PrometheusConfig(url))
    try:
        answer = await connection.post("/api/v1/query", {"query": "min(count_over_time(up[10m]))"})
    finally:
        connection.close()
    result = answer["data"]["result"]
    return bool(result) and float(result[0]["value"][1]) >= 6


def told(url: str, *more: str) -> Any:
    arguments = ["doctor", "meter", f"--prometheus-url={url}", f"--scrape-interval={INTERVAL}s", *more]
    return CliRunner().invoke(cli, arguments, env={"KUBECONFIG": "/none", "KUBERNETES_SERVICE_HOST": None})


def test_the_command_says_field_by_field_what_to_set_and_ends_with_1(addresses: dict[str, str]) -> None:
    found = told(addresses["timestamps not honoured"], "-o", "json")
    answer = json.loads(found.stdout)
    assert found.exit_code == 1
    assert answer["ok"] is False
    wrong = {one["code"]: one for one in answer["advice"] if one["must"]}
    assert wrong["IgnoredTimestamps"]["changes"] == [
        {"where": "job cadvisor", "field": "honor_timestamps", "to": "true"}
    ]
    text = told(addresses["timestamps not honoured"]).stdout
    assert "honor_timestamps = true" in text


def test_the_command_ends_with_0_where_nothing_must_change(addresses: dict[str, str]) -> None:
    found = told(addresses["right"], "-o", "json")
    answer = json.loads(found.stdout)
    assert [one["code"] for one in answer["advice"]] == ["ClusterNotTold"]
    assert answer["ok"] is True
    assert found.exit_code == 0


def test_a_prometheus_that_does_not_answer_is_an_advice_too() -> None:
    (port,) = ports.reserve(1)
    found = told(f"http://127.0.0.1:{port}", "-o", "json")
    ports.release([port])
    assert found.exit_code == 1
    (down, _) = json.loads(found.stdout)["advice"]
    assert down["code"] == "PrometheusDown"
    assert down["changes"][0]["field"] == "prometheus.url"


def test_without_an_address_the_remedy_is_said() -> None:
    found = CliRunner().invoke(cli, ["doctor", "meter"], env={"HOMEFED_PROMETHEUS_URL": ""})
    assert "--prometheus-url" in str(found.exception)
