"""From what a Prometheus, Thanos or VictoriaMetrics answered to series; partial answers are refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from homefed.api.errors import Invalid, Refused
from homefed.core.samples import Metric, RawSeries


def matrix(answer: Mapping[str, Any], metric: Metric) -> list[RawSeries]:
    """The series of a range vector. Raises Refused where the answer is a part, Invalid where it is something else."""
    return [_series(metric, one) for one in _result(answer, "matrix")]


def number(answer: Mapping[str, Any]) -> int:
    """The value of an instant vector of at most one series; 0 where it is empty. Errors: as `matrix`."""
    try:
        value = sum(float(series["value"][1]) for series in _result(answer, "vector"))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Invalid(f"Prometheus answered a malformed vector: {error}", reason="MalformedAnswer") from error
    if not math.isfinite(value) or value < 0:
        raise Invalid(f"Prometheus counted {value} samples", reason="MalformedAnswer")
    return int(value)


def refuse_part(answer: Mapping[str, Any]) -> None:
    """Raises Refused where the answer says that something is missing in it: `warnings` (Prometheus, Thanos) or
    `isPartial` (VictoriaMetrics). `infos` and `stats` say nothing of the kind."""
    data = answer.get("data")
    inner = data.get("warnings") if isinstance(data, dict) else None
    warnings = answer.get("warnings") or inner or (["isPartial is true"] if answer.get("isPartial") else None)
    if warnings:
        told = warnings if isinstance(warnings, list) else [warnings]
        text = "; ".join(map(str, told))[:500]
        raise Refused(f"Prometheus answered in part only: {text}", reason="PartialAnswer")


def from_one_kind_of_source(series: Iterable[RawSeries]) -> list[RawSeries]:
    """Without the series that lack a container `id` where others of their metric, pod and container have one.

    The kubelet offers CPU and memory under the same names at /metrics/resource too, without ids. Where both paths are
    scraped, their samples would look like two instances that take turns."""
    found = list(series)
    with_id = {_key(one) for one in found if one.labels.get("id")}
    return [one for one in found if one.labels.get("id") or _key(one) not in with_id]


def _key(series: RawSeries) -> tuple[str, ...]:
    return (series.metric, *(series.labels.get(name, "") for name in ("namespace", "pod", "container")))


def _result(answer: Mapping[str, Any], kind: str) -> Sequence[Any]:
    refuse_part(answer)
    data = answer.get("data")
    if not isinstance(data, dict) or data.get("resultType") != kind or not isinstance(data.get("result"), list):
        text = {"matrix": "range vector", "vector": "instant vector"}[kind]
        raise Invalid(f"Prometheus answered no {text}: is this address a Prometheus?", reason="MalformedAnswer")
    result: list[Any] = data["result"]
    return result


def _series(metric: Metric, series: Any) -> RawSeries:
    """Sample times arrive as seconds with three decimals. What a value may be is judged later, per sample."""
    try:
        labels = {str(name): str(value) for name, value in series["metric"].items()}
        samples, before = [], ""
        for time, value in series["values"]:
            before = before if value == before else _text(value)  # start times and idle counters: one text for all
            samples.append((round(float(time) * 1000), before))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Invalid(f"Prometheus answered a malformed series: {error}", reason="MalformedAnswer") from error
    return RawSeries(metric, labels, samples)


def _text(value: Any) -> str:
    """A sample's value is a string in JSON, so that no digit is lost and NaN and infinities can be told."""
    if not isinstance(value, str):
        raise ValueError(f"value {value!r} is no string")
    return value
