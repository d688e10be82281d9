"""What probes and Prometheus see."""

from __future__ import annotations

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from homefed.kube.health import serve_health


async def fetch(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_a_process_that_waits_for_something_is_alive_but_not_ready() -> None:
    problem: list[str | None] = ["the first list of pods has not arrived"]
    async with serve_health(0, {"pods": lambda: problem[0]}, CollectorRegistry(), host="127.0.0.1") as port:
        assert await fetch(port, "/healthz") == (200, "ok\n")
        assert await fetch(port, "/readyz") == (503, "pods: the first list of pods has not arrived\nfailed\n")
        problem[0] = None
        assert await fetch(port, "/readyz") == (200, "pods: ok\nok\n")


async def test_a_process_that_must_be_restarted_is_neither_alive_nor_ready() -> None:
    live = {"workers": lambda: "no worker is left"}
    async with serve_health(0, {}, CollectorRegistry(), live=live, host="127.0.0.1") as port:
        assert (await fetch(port, "/healthz"))[0] == 503
        assert (await fetch(port, "/readyz"))[0] == 503


async def test_metrics_are_those_of_the_registry() -> None:
    registry = CollectorRegistry()
    Counter("homefed_claims", "Claims written.", registry=registry).inc(3)
    async with serve_health(0, {}, registry, host="127.0.0.1") as port:
        code, text = await fetch(port, "/metrics")
    assert code == 200
    assert "homefed_claims_total 3.0" in text


async def test_a_taken_port_is_an_error_and_a_freed_one_is_free() -> None:
    async with serve_health(0, {}, CollectorRegistry(), host="127.0.0.1") as port:
        with pytest.raises(OSError, match="address already in use"):
            async with serve_health(port, {}, CollectorRegistry(), host="127.0.0.1"):
                pass
    async with serve_health(port, {}, CollectorRegistry(), host="127.0.0.1") as again:
        assert again == port
