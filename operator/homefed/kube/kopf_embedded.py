"""kopf inside a process that does more than kopf.

`kopf.operator` takes every task that is younger than itself for its own and cancels it at its end; what runs beside it
would be killed. So its root tasks are started and ended here, and nothing else is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

import kopf


async def run_kopf(registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings, **scope: Any) -> None:
    """Watch until cancelled, or until SIGTERM or SIGINT, then return; raises what made kopf fail.

    `scope`: clusterwide=True, or namespaces=[…]. The identity is for peering, which standalone operators do not have;
    left to itself, kopf looks up the user's name, and containers often have none.
    """
    named: dict[str, Any] = {"identity": "homefed", **scope}
    tasks = await kopf.spawn_tasks(registry=registry, settings=settings, standalone=True, **named)
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        _release_signals()
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


def _release_signals() -> None:
    """kopf's handlers set a future that is done by now: a second signal would fail there."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
            loop.remove_signal_handler(number)
