"""The local copy: what it takes over, what it never forgets, and how slowly it tries again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts.kube.scripted import (
    ScriptedServer,
    answered,
    cut,
    event,
    pod,
    pod_list,
    status,
    streamed,
)
from homefed.api.errors import Gone, Refused, Transient
from homefed.kube import client as client_module
from homefed.kube import transport
from homefed.kube.client import KubeClient
from homefed.kube.queue import Backoff
from homefed.kube.reflector import Reflector, drop_managed_fields, key_of
from homefed.kube.resources import PODS
from unit.kube.waiting import until

A, B, C = (("default", name) for name in "abc")
GONE = event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})


class Seen:
    """The changes that a reflector told, in words."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []

    def __call__(self, key: tuple[str, str], old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        word = "new" if old is None else "gone" if new is None else "changed"
        self.changes.append((word, key[1]))


def quick(seen: Seen | None = None, **options: Any) -> dict[str, Any]:
    return {"on_change": seen, "backoff": Backoff(base=0.001, cap=0.01, rng=random.Random(1))} | options


@asynccontextmanager
async def running(reflector: Reflector) -> AsyncIterator[Reflector]:
    task = asyncio.create_task(reflector.run())
    try:
        yield reflector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_it_lists_then_follows(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(pod_list(10, pod("a", 1), pod("b", 2)))
    changes = event("ADDED", pod("c", 11)), event("MODIFIED", pod("a", 12)), event("DELETED", pod("b", 13))
    server.watches(streamed(*changes, end="hang"))
    seen = Seen()
    async with running(Reflector(client, PODS, "default", label_selector="x=y", **quick(seen))) as reflector:
        await asyncio.wait_for(reflector.synced.wait(), 60)
        await until(lambda: reflector.resource_version == "13")
    assert sorted(reflector.store) == [A, C]
    assert reflector.store[A]["metadata"]["resourceVersion"] == "12"
    assert seen.changes == [("new", "a"), ("new", "b"), ("new", "c"), ("changed", "a"), ("gone", "b")]
    watch = server.asked(watch=True)[0].query
    assert (watch["resourceVersion"], watch["labelSelector"]) == ("10", "x=y")
    assert watch["allowWatchBookmarks"] == "true"


async def test_a_watch_that_ends_is_continued_from_its_last_event_without_a_new_list(
    server: ScriptedServer, client: KubeClient
) -> None:
    server.answers(pod_list(10))
    bookmark = event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "20"}})
    server.watches(streamed(event("ADDED", pod("a", 11))), streamed(bookmark), streamed(end="hang"))
    async with running(Reflector(client, PODS, **quick())) as reflector:
        await until(lambda: len(server.asked(watch=True)) == 3)
    assert [request.query["resourceVersion"] for request in server.asked(watch=True)] == ["10", "11", "20"]
    assert len(server.asked(watch=False)) == 1
    assert list(reflector.store) == [A]


async def test_a_server_that_ends_every_watch_at_once_is_asked_ever_more_slowly(
    server: ScriptedServer, client: KubeClient
) -> None:
    server.answers(pod_list(10))
    server.watches(*(streamed() for _ in range(1000)))
    backoff: Backoff[str] = Backoff(base=0.05, cap=10.0, rng=random.Random(1))
    async with running(Reflector(client, PODS, backoff=backoff)):
        await asyncio.sleep(1.0)
        assert len(server.asked(watch=True)) <= 6  # 0.05 + 0.1 + 0.2 + 0.4 s, ± 20 %
        await until(lambda: len(server.asked(watch=True)) >= 3)


@pytest.mark.parametrize(
    "trouble",
    [
        streamed(event("MODIFIED", pod("a", 11)), end="cut"),
        streamed(event("MODIFIED", pod("a", 11)), '{"type": "DELETED", "obj'),
        streamed(event("MODIFIED", pod("a", 11)), '{"type": "DELETED", "obj', end="cut"),
        streamed(event("MODIFIED", pod("a", 11)), "{nonsense\n"),
        streamed(event("MODIFIED", pod("a", 11)), "[]\n"),
        streamed(event("MODIFIED", pod("a", 11)), event("DELETED", {"metadata": {}})),
        streamed(event("MODIFIED", pod("a", 11)), event("ADDED", {"metadata": "x"})),
        streamed(event("MODIFIED", pod("a", 11)), event("EXPLODED", pod("a", 12))),
        streamed(event("MODIFIED", pod("a", 11)), {"type": "ADDED"}),
        streamed(event("MODIFIED", pod("a", 11)), event("ERROR", {"code": 500, "message": "etcd"})),
        streamed(event("MODIFIED", pod("a", 11)), event("ERROR", {"kind": "Status"})),
    ],
)
async def test_a_broken_or_absurd_watch_loses_nothing_and_is_taken_up_again(
    server: ScriptedServer, client: KubeClient, trouble: Any
) -> None:
    server.answers(pod_list(10, pod("a", 1)))
    server.watches(trouble, streamed(event("ADDED", pod("b", 12)), end="hang"))
    seen = Seen()
    async with running(Reflector(client, PODS, **quick(seen))) as reflector:
        await until(lambda: B in reflector.store)
    assert seen.changes == [("new", "a"), ("changed", "a"), ("new", "b")]
    assert [request.query["resourceVersion"] for request in server.asked(watch=True)] == ["10", "11"]


@pytest.mark.parametrize("gone", [streamed(GONE), status(410, "Expired")])
async def test_after_410_it_lists_anew_and_tells_what_was_deleted_meanwhile(
    server: ScriptedServer, client: KubeClient, gone: Any
) -> None:
    server.answers(pod_list(10, pod("a", 1), pod("b", 2)), pod_list(30, pod("b", 2), pod("c", 29)))
    server.watches(gone)
    seen = Seen()
    async with running(Reflector(client, PODS, **quick(seen))) as reflector:
        await until(lambda: C in reflector.store)
    assert sorted(reflector.store) == [B, C]
    assert seen.changes == [("new", "a"), ("new", "b"), ("gone", "a"), ("new", "c")]


@pytest.mark.parametrize(
    "failed",
    [
        status(500, "InternalError"),
        status(403, "Forbidden"),
        status(401, "Unauthorized"),
        status(404, "NotFound"),
        cut(),
        answered("{}"),
        answered("nonsense"),
        answered({"kind": "PodList", "metadata": {"resourceVersion": "9"}, "items": [{"metadata": {}}]}),
        pod_list(20, pod("c", 19), **{"continue": "the next page is missing"}),
    ],
)
async def test_a_failed_list_forgets_nothing(server: ScriptedServer, client: KubeClient, failed: Any) -> None:
    server.answers(pod_list(10, pod("a", 1), pod("b", 2)), failed)
    server.watches(streamed(GONE))
    seen = Seen()
    async with running(Reflector(client, PODS, **quick(seen))) as reflector:
        await until(
            lambda: len(server.asked(watch=False)) >= 4
        )  # the first, the failed, and attempts without an answer
    assert sorted(reflector.store) == [A, B]
    assert seen.changes == [("new", "a"), ("new", "b")]


async def test_it_is_not_synced_before_the_first_complete_list(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(status(500, "InternalError"), pod_list(9, pod("a", 1), **{"continue": "x"}), status(500, "E"))
    async with running(Reflector(client, PODS, **quick())) as reflector:
        await until(lambda: len(server.requests) >= 3)
        assert not reflector.synced.is_set()
        assert reflector.store == {}
        assert reflector.stale(now=0.0)


async def test_a_re_created_object_is_one_change_with_another_uid(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(pod_list(10, pod("a", 1)), pod_list(30, pod("a", 29, uid="another")))
    server.watches(streamed(GONE))
    seen = Seen()
    async with running(Reflector(client, PODS, **quick(seen))) as reflector:
        await until(lambda: reflector.resource_version == "30")
    assert seen.changes == [("new", "a"), ("changed", "a")]


async def test_after_failures_in_a_row_the_version_is_not_trusted_any_more(
    server: ScriptedServer, client: KubeClient
) -> None:
    server.answers(pod_list(1000, pod("a", 1)), pod_list(10, pod("a", 1)))
    server.watches(*(status(504, "Timeout", "Too large resource version") for _ in range(5)))
    async with running(Reflector(client, PODS, **quick())):
        await until(lambda: len(server.asked(watch=True)) == 6)
    assert server.asked(watch=True)[-1].query["resourceVersion"] == "10"


async def test_it_is_stale_when_nothing_was_heard_for_long(server: ScriptedServer, client: KubeClient) -> None:
    now = [1000.0]
    server.answers(pod_list(10))
    async with running(Reflector(client, PODS, **quick(clock=lambda: now[0]))) as reflector:
        await asyncio.wait_for(reflector.synced.wait(), 60)
    assert reflector.last_seen == 1000.0
    assert not reflector.stale(1180.0)
    assert reflector.stale(1180.1)
    assert reflector.stale(1011.0, after_seconds=10)


async def test_a_silent_connection_is_given_up(server: ScriptedServer, client: KubeClient) -> None:
    server.watches(streamed(event("ADDED", pod("a", 1)), end="hang"))
    events = client.watch(PODS, None, "0", idle_seconds=0.1)
    assert (await anext(events))[0] == "ADDED"
    with pytest.raises(Transient) as caught:
        await anext(events)
    assert caught.value.reason == "Timeout"


async def test_a_watch_that_outlives_its_length_is_given_up(
    server: ScriptedServer, client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.1)
    with pytest.raises(Transient):
        await anext(client.watch(PODS, None, "0", server_seconds=0.1))


async def test_silent_connections_are_kept_alive(server: ScriptedServer, client: KubeClient) -> None:
    watching = asyncio.ensure_future(anext(client.watch(PODS, None, "0")))
    await until(lambda: len(server.requests) == 1)
    await asyncio.sleep(0.05)
    timers = [
        fields[5].split(":")[0]
        for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if fields[2].endswith(f":{server.port:04X}") and fields[3] == "01"
    ]
    watching.cancel()
    assert timers == ["02"]  # the kernel's keep-alive timer


async def test_a_watch_tells_gone_by_its_name(server: ScriptedServer, client: KubeClient) -> None:
    server.watches(streamed(GONE))
    with pytest.raises(Gone):
        await anext(client.watch(PODS, None, "0"))


async def test_an_endless_event_is_refused(
    server: ScriptedServer, client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_EVENT_BYTES", 1000)
    server.watches(streamed("x" * 5000, end="hang"))
    with pytest.raises(Refused) as caught:
        await anext(client.watch(PODS, None, "0"))
    assert caught.value.reason == "AnswerTooLarge"


async def test_events_that_arrive_in_pieces_are_put_together(server: ScriptedServer, client: KubeClient) -> None:
    large = pod("a", 1, annotations={"pad": "ü" * 300_000})
    server.watches(streamed(event("ADDED", large), "\n", event("MODIFIED", pod("a", 2))))
    taken = [obj async for _, obj in client.watch(PODS, None, "0")]
    assert taken == [large, pod("a", 2)]


async def test_only_what_the_trim_leaves_is_kept(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(pod_list(10, pod("a", 1, managedFields=[1])))
    server.watches(streamed(event("ADDED", pod("b", 11, managedFields=[1])), end="hang"))
    async with running(Reflector(client, PODS, **quick())) as reflector:
        await until(lambda: B in reflector.store)
    assert [reflector.store[key] for key in (A, B)] == [pod("a", 1), pod("b", 11)]
    assert drop_managed_fields({"metadata": {"name": "x", "managedFields": []}}) == {"metadata": {"name": "x"}}


def test_a_key_needs_a_name() -> None:
    assert key_of({"metadata": {"name": "n"}}) == ("", "n")
    for wrong in ({}, {"metadata": None}, {"metadata": {"name": 7}}):
        with pytest.raises(Transient):
            key_of(wrong)
