"""Shards: together all guest pods, each once; queries that name no pod."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.metering.queries import MAX_SHARDS, QUERIES, SAMPLES_PER_ANSWER, Shard, counting, selector, shards


def matches(shard: Shard, pod: str) -> bool:
    """As Prometheus anchors a regular expression."""
    text = re.fullmatch(r'pod=~"(.*)"', shard.matcher())
    return text is not None and re.fullmatch(text[1], pod) is not None


@given(st.uuids(), st.integers(0, 2**40))
def test_every_guest_is_in_exactly_one_shard(uid: UUID, samples: int) -> None:
    assert sum(matches(shard, f"hf-{uid}") for shard in shards(samples)) == 1


@given(st.integers(0, MAX_SHARDS * SAMPLES_PER_ANSWER))
def test_a_shard_holds_about_so_many_samples_and_no_fewer_than_half(samples: int) -> None:
    number = len(shards(samples))
    assert samples / number <= SAMPLES_PER_ANSWER
    assert number == 1 or samples / number > SAMPLES_PER_ANSWER / 2


def test_shards_are_bounded() -> None:
    assert len(shards(2**62)) == MAX_SHARDS


@pytest.mark.parametrize("number", [1, 2, 4, 8, 16, 32, 64, 128, 256])
def test_other_pods_are_in_no_shard(number: int) -> None:
    for shard in shards(number * SAMPLES_PER_ANSWER):
        assert not matches(shard, "prometheus-0")
        assert not matches(shard, "hf-")


def test_queries_read_as_promql() -> None:
    assert selector("cpu", "homefed-guests", Shard(), 3660) == (
        'container_cpu_usage_seconds_total{namespace="homefed-guests",pod=~"hf-.+",container!="",container!="POD"}[3660s]'
    )
    assert selector("start", "g", Shard(("0", "1")), 60) == (
        'container_start_time_seconds{namespace="g",pod=~"hf-(0|1).+"}[60s]'
    )
    assert (
        counting("start", "g", 60)
        == 'sum(count_over_time(container_start_time_seconds{namespace="g",pod=~"hf-.+"}[60s]))'
    )
    assert len({name for name, _ in QUERIES.values()}) == len(QUERIES)
