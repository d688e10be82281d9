"""A queue of keys and the workers that reconcile them.

Handlers and reflectors only add keys; the same key is never reconciled twice at once; adding a waiting key changes
nothing. What fails is tried again later and later; what a person must change waits for the periodic pass.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar

from prometheus_client import Counter as Metric

from homefed.api.errors import HomefedError, Incident, Refused, Transient

logger = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
CAPACITY: Final = 100_000
MAX_TOLD: Final = 10_000
RECONCILIATIONS: Final = Metric(
    "homefed_reconciliations", "Reconciliations by what is reconciled and how it ended.", ["name", "outcome"]
)


class Backoff(Generic[K]):
    """Seconds to wait after the n-th failure in a row of a key: base × 2ⁿ up to `cap`, ± 20 %."""

    def __init__(self, base: float = 0.2, cap: float = 60.0, rng: random.Random | None = None) -> None:
        self._base, self._cap = base, cap
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._failures: Counter[K] = Counter()

    def failed(self, key: K, at_least: float | None = None) -> float:
        """Count a failure; the delay before the next attempt, not under `at_least` (a server's Retry-After)."""
        exponent = min(self._failures[key], 30)
        self._failures[key] += 1
        delay = min(self._cap, self._base * float(1 << exponent))
        return max(delay, min(at_least or 0.0, self._cap)) * self._rng.uniform(0.8, 1.2)

    def succeeded(self, key: K) -> None:
        self._failures.pop(key, None)


class WorkQueue(Generic[K]):
    """Keys waiting to be reconciled: each at most once, first come first served. For one event loop."""

    def __init__(self, *, backoff: Backoff[K] | None = None, capacity: int = CAPACITY) -> None:
        self.backoff = backoff or Backoff()
        self.dropped = 0
        """Keys refused because the queue was full; the periodic pass brings them back."""
        self._capacity = capacity
        self._waiting: dict[K, None] = {}
        self._working: dict[K, bool] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._available = asyncio.Event()

    def add(self, key: K) -> None:
        """Reconcile this key soon; while it is being reconciled, once more afterwards."""
        self._cancel_timer(key)
        if key in self._working:
            self._working[key] = True
        elif key not in self._waiting:
            self._append(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Reconcile this key in so many seconds, or sooner where that is asked for already."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        when = loop.time() + seconds
        if key in self._waiting or (timer is not None and timer.when() <= when):
            return
        self._cancel_timer(key)
        if len(self) >= self._capacity:
            self.dropped += 1
            return
        self._timers[key] = loop.call_at(when, self.add, key)

    async def get(self) -> K:
        """The next key; it counts as being worked on until `done`."""
        while not self._waiting:
            self._available.clear()
            await self._available.wait()
        key = next(iter(self._waiting))
        del self._waiting[key]
        self._working[key] = False
        return key

    def done(self, key: K) -> None:
        """Work on the key has ended, whichever way; it waits again if it was added meanwhile."""
        if self._working.pop(key):
            self._cancel_timer(key)
            self._append(key)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being worked on; keys due later do not count."""
        return not self._waiting and not self._working

    def __len__(self) -> int:
        """Keys waiting, now or later; those being worked on do not count."""
        return len(self._waiting) + len(self._timers)

    def _append(self, key: K) -> None:
        if len(self) >= self._capacity:
            self.dropped += 1
            return
        self._waiting[key] = None
        self._available.set()

    def _cancel_timer(self, key: K) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()


Reconcile = Callable[[K], Awaitable[float | None]]
"""Brings one key to its desired state; returns the seconds after which to look again, or None."""


async def run_workers(queue: WorkQueue[K], reconcile: Reconcile[K], *, concurrency: int = 4, name: str) -> None:
    """Reconcile keys until cancelled, `concurrency` at a time; `name` says in logs what is being reconciled."""
    refusals: dict[K, str] = {}
    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(_work(queue, reconcile, refusals, name), name=f"{name}-{number}")


async def _work(queue: WorkQueue[K], reconcile: Reconcile[K], refusals: dict[K, str], name: str) -> None:
    while True:
        key = await queue.get()
        try:
            await _reconcile(queue, reconcile, key, refusals, name)
        finally:
            queue.done(key)


async def _reconcile(queue: WorkQueue[K], reconcile: Reconcile[K], key: K, refusals: dict[K, str], name: str) -> None:
    """One attempt: Refused and Incident are told once and left to the periodic pass, the rest is tried again."""
    try:
        again = await reconcile(key)
    except (Refused, Incident) as error:
        outcome = "refused"
        queue.backoff.succeeded(key)
        _tell_once(refusals, key, error, name)
    except HomefedError as error:
        outcome = "retried"
        wait = error.retry_after if isinstance(error, Transient) else None
        delay = queue.backoff.failed(key, wait)
        logger.info("%s %s: %s; again in %.1f s", name, key, error.message, delay, extra={"reason": error.reason})
        queue.add_after(key, delay)
    except Exception:
        outcome = "failed"
        # One object that trips over a fault of ours must not stop the work on all others.
        delay = queue.backoff.failed(key)
        logger.exception("%s %s: unexpected failure; again in %.1f s", name, key, delay)
        queue.add_after(key, delay)
    else:
        outcome = "done"
        queue.backoff.succeeded(key)
        refusals.pop(key, None)
        if again is not None:
            queue.add_after(key, again)
    RECONCILIATIONS.labels(name, outcome).inc()


def _tell_once(refusals: dict[K, str], key: K, error: HomefedError, name: str) -> None:
    if refusals.get(key) == error.message:
        return
    if len(refusals) >= MAX_TOLD:
        refusals.clear()
    refusals[key] = error.message
    level = logging.ERROR if isinstance(error, Incident) else logging.WARNING
    logger.log(level, "%s %s: %s", name, key, error.message, extra={"reason": error.reason})


async def periodic(queue: WorkQueue[K], keys: Callable[[], Iterable[K]], every_seconds: float) -> None:
    """Add every key, at once and then again and again until cancelled: what an event missed is made good here."""
    while True:
        for key in list(keys()):
            queue.add(key)
        await asyncio.sleep(every_seconds)
