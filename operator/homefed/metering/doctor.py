"""Gathers what the examination of a meter judges: from Prometheus' HTTP API, as a client like any other.

What a server does not serve (Thanos knows no targets, a proxy may forbid the configuration) becomes None: not known.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from homefed.api.errors import Invalid, Refused, Unauthorised
from homefed.api.names import VIRTUAL_NODE_TYPE
from homefed.core.meter_facts import NAMES, Facts, Guest, Job, Node, Series, Target
from homefed.metering.answers import refuse_part
from homefed.metering.connection import Connection
from homefed.metering.queries import WITHOUT_PARTS

MIN_SPAN_SECONDS: Final = 120
MAX_SPAN_SECONDS: Final = 1800
SCRAPES: Final = 20
"""So many intervals are looked back."""

LATE_SECONDS: Final = 5400
"""Prometheus takes no sample that is more than an hour behind its newest, and none more than ten minutes ahead."""
AHEAD_SECONDS: Final = 900

_CONTAINERS: Final = f'{{__name__=~"{"|".join(NAMES)}"}}'
_NODE_LABELS: Final = (
    "__meta_kubernetes_node_name",
    "__meta_kubernetes_endpoint_address_target_name",
    "__meta_kubernetes_endpointslice_address_target_name",
)
_NODE_TYPE: Final = "__meta_kubernetes_node_label_type"
_PROXIED: Final = re.compile(r"/nodes/([^/]+)/proxy/")
_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


async def gather(
    connection: Connection,
    *,
    interval_seconds: int,
    namespace: str,
    nodes: Sequence[Node] | None = None,
    guests: Sequence[Guest] | None = None,
    clock: Callable[[], float] = time.time,
) -> Facts:
    """Facts of now; `nodes` and `guests` as the home's API server has them. Errors: those of Connection."""
    span = min(MAX_SPAN_SECONDS, max(MIN_SPAN_SECONDS, SCRAPES * interval_seconds))
    before = clock()
    server = _scalar(await _query(connection, "time()"))
    now = round((before + clock()) * 500)
    read = partial(_read, connection, server)
    facts = Facts(
        now=now,
        server=server,
        interval=interval_seconds * 1000,
        namespace=namespace,
        series=await read(_CONTAINERS, span),
        up=await read("up", span),
        kept=await read("scrape_samples_post_metric_relabeling", span),
        targets=_targets(await _optional(connection, "/api/v1/targets", {"state": "active"})),
        jobs=_jobs(await _optional(connection, "/api/v1/status/config")),
        nodes=nodes,
        guests=guests,
    )
    return replace(facts, series=await read(_CONTAINERS, LATE_SECONDS)) if facts.lost() else facts


async def _read(connection: Connection, server: int, selector: str, span: int) -> list[Series]:
    """The samples from `span` seconds before `server` (ms) on, those from the future too."""
    until = f"{server / 1000 + AHEAD_SECONDS:.3f}"
    return _matrix(await _query(connection, f"{selector}[{span + AHEAD_SECONDS}s]", time=until))


async def version(connection: Connection) -> str:
    """As the server says; empty where it does not."""
    data = (await _optional(connection, "/api/v1/status/buildinfo") or {}).get("data")
    return str(data.get("version", "")) if isinstance(data, dict) else ""


async def _query(connection: Connection, query: str, **more: str) -> dict[str, Any]:
    return await connection.post("/api/v1/query", {"query": query, **more, **WITHOUT_PARTS})


async def _optional(
    connection: Connection, path: str, parameters: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """None where this server does not serve it, or not to us."""
    try:
        return await connection.get(path, parameters)
    except Unauthorised:
        raise
    except Refused:
        return None


def _scalar(answer: Mapping[str, Any]) -> int:
    """The server's time in ms: a scalar, which some answer as a vector of one."""
    try:
        result = answer["data"]["result"]
        value = result[1] if answer["data"]["resultType"] == "scalar" else result[0]["value"][1]
        return round(float(value) * 1000)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Invalid("Prometheus answered no time: is this address a Prometheus?", reason="MalformedAnswer") from error


def _matrix(answer: Mapping[str, Any]) -> list[Series]:
    refuse_part(answer)
    try:
        return [_series(one) for one in answer["data"]["result"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Invalid(f"Prometheus answered a malformed series: {error}", reason="MalformedAnswer") from error


def _series(one: Mapping[str, Any]) -> Series:
    times = [round(float(time) * 1000) for time, _ in one["values"]]
    return Series(dict(one["metric"]), times, [str(value) for _, value in one["values"]])


def _targets(answer: Mapping[str, Any] | None) -> list[Target] | None:
    """None where none are told: Thanos answers an empty list when its sidecars tell it nothing."""
    data = (answer or {}).get("data")
    active = data.get("activeTargets") if isinstance(data, dict) else None
    return [_target(one) for one in active] if active else None


def _target(one: Mapping[str, Any]) -> Target:
    labels, discovered = one.get("labels") or {}, one.get("discoveredLabels") or {}
    url = urlsplit(str(one.get("scrapeUrl", "")))
    proxied = _PROXIED.search(url.path)
    named = [labels.get("node", ""), *(discovered.get(name, "") for name in _NODE_LABELS)]
    return Target(
        job=str(labels.get("job") or one.get("scrapePool", "")),
        instance=str(labels.get("instance", url.netloc)),
        path=url.path,
        node=proxied[1] if proxied else next((name for name in named if name), ""),
        is_virtual=discovered.get(_NODE_TYPE) == VIRTUAL_NODE_TYPE,
        healthy=one.get("health") != "down",
        error=str(one.get("lastError", "")),
        interval=milliseconds(str(one.get("scrapeInterval", ""))),
    )


def milliseconds(text: str) -> int | None:
    """A duration as Prometheus writes it, such as 1m30s; None for anything else."""
    parts = re.findall(r"([0-9]+)(ms|[smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def _jobs(answer: Mapping[str, Any] | None) -> list[Job] | None:
    """Entries of scrape_configs; None where the configuration is not told, or is none."""
    data = (answer or {}).get("data")
    text = data.get("yaml") if isinstance(data, dict) else None
    if not isinstance(text, str):
        return None
    try:
        configuration = yaml.safe_load(text)
        return [
            Job(str(entry["job_name"]), bool(entry.get("honor_timestamps", True)))
            for entry in configuration.get("scrape_configs") or ()
        ]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return None
