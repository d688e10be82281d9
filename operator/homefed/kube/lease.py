"""Leases: renewing those of virtual nodes, and holding our own so that one replica works at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from homefed.api.errors import AlreadyExists, Conflict, HomefedError, NotFound, Stale, Transient
from homefed.core.lease import micro_time, next_renew_time, parse_micro_time
from homefed.kube.client import KubeClient
from homefed.kube.resources import LEASES
from homefed.kube.transport import Json

logger = logging.getLogger(__name__)
T = TypeVar("T")
ATTEMPTS: Final = 3


async def renew(
    client: KubeClient, name: str, namespace: str, holder: str, now: datetime, *, duration_seconds: int = 40
) -> Json:
    """Renew an existing Lease and return it as written. `now`: aware, corrected to the server's clock.

    GET, then PUT with its resourceVersion: the right to `update` is enough. NotFound where there is no such Lease;
    Conflict where others write it at the same time, thrice in a row.
    """
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(Conflict):
            return await _renew_once(client, name, namespace, holder, now, duration_seconds)
    return await _renew_once(client, name, namespace, holder, now, duration_seconds)


async def _renew_once(
    client: KubeClient, name: str, namespace: str, holder: str, now: datetime, duration_seconds: int
) -> Json:
    lease = await client.get(LEASES, name, namespace)
    return await client.update(LEASES, _held(lease, holder, now, duration_seconds))


def _held(lease: Json, holder: str, now: datetime, duration_seconds: int) -> Json:
    """The Lease as `holder` renews it; acquireTime and transitions change with the holder only."""
    spec: Json = dict(lease.get("spec") or {})
    renewed = micro_time(next_renew_time(_renew_time(spec), now))
    if spec.get("holderIdentity") != holder:
        spec["acquireTime"] = renewed
        spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + (1 if spec.get("holderIdentity") else 0)
    spec |= {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": duration_seconds}
    return {**lease, "spec": spec}


def _renew_time(spec: Json) -> datetime | None:
    """renewTime of the spec; None where it is absent or unreadable (then any time is newer)."""
    try:
        return parse_micro_time(spec["renewTime"])
    except (KeyError, TypeError, ValueError):
        return None


class LeaseLost(HomefedError):
    """Another process holds our Lease, or it could not be renewed in time: end this process."""

    default_reason = "LeaseLost"


class HolderLease:
    """Our own Lease: at most one process of a name works at a time.

    Another's Lease is taken over only after it stood unchanged for its whole duration on *our* monotonic clock, so
    clocks need not agree. The holder gives up at two thirds of the duration, before anyone else may take it.
    """

    def __init__(
        self,
        client: KubeClient,
        name: str,
        namespace: str,
        identity: str,
        *,
        duration_seconds: int = 30,
        retry_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`identity` must differ between processes that run at once, and should survive a container's restart."""
        self._client, self._name, self._namespace, self.identity = client, name, namespace, identity
        self._duration_seconds, self._retry_seconds, self._clock = duration_seconds, retry_seconds, clock
        self._seen: tuple[str, float] = ("", 0.0)
        self.last_renewal: datetime | None = None
        """When the Lease was last renewed before we acquired it: nobody of its name worked since. None: never."""

    async def acquire(self) -> None:
        """Wait until the Lease is ours. Transient failures are waited out; Forbidden and the like are raised."""
        while not await self._try_acquire():  # noqa: ASYNC110 - the event is in another process
            await asyncio.sleep(self._retry_seconds)

    async def hold(self) -> None:
        """Renew until cancelled; LeaseLost when another holds it or no renewal succeeded in time."""
        limit = self._duration_seconds * 2 / 3
        renewed = self._clock()
        while True:
            await asyncio.sleep(self._retry_seconds)
            attempted = self._clock()
            try:
                async with asyncio.timeout(max(0.0, renewed + limit - attempted)):
                    await self._renew_own()
                renewed = attempted
            except (Transient, Stale, TimeoutError) as error:
                logger.warning("lease %s: not renewed: %r", self._name, error)
            if self._clock() - renewed >= limit:
                raise LeaseLost(f"lease {self._namespace}/{self._name} could not be renewed for {limit:.0f} s")

    async def release(self) -> None:
        """Let the next process have it at once; does nothing where it is not ours."""
        lease = await self._client.get(LEASES, self._name, self._namespace)
        if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
            spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
            await self._client.update(LEASES, {**lease, "spec": spec})

    async def _try_acquire(self) -> bool:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
            if not self._free(lease):
                return False
            self.last_renewal = _renew_time(lease.get("spec") or {})
            await self._client.update(LEASES, self._ours(lease))
        except NotFound:
            return await self._try_create()
        except (Transient, Stale) as error:
            logger.info("lease %s: not acquired yet: %s", self._name, error.message)
            return False
        return True

    async def _try_create(self) -> bool:
        empty = {"metadata": {"name": self._name, "namespace": self._namespace}}
        try:
            await self._client.create(LEASES, self._ours(empty))
        except (AlreadyExists, Stale, Transient) as error:
            logger.info("lease %s: not created: %s", self._name, error.message)
            return False
        return True

    def _free(self, lease: Json) -> bool:
        """Ours already, released, or unchanged for its whole duration since we first saw it so."""
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder in (None, "", self.identity):
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, self._clock())
            logger.info("lease %s: held by %s; waiting", self._name, holder)
        return self._clock() - self._seen[1] > (spec.get("leaseDurationSeconds") or self._duration_seconds)

    async def _renew_own(self) -> None:
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except NotFound:
            raise LeaseLost(f"lease {self._namespace}/{self._name} was deleted") from None
        holder = (lease.get("spec") or {}).get("holderIdentity")
        if holder != self.identity:
            raise LeaseLost(f"lease {self._namespace}/{self._name} is now held by {holder or 'nobody'}")
        await self._client.update(LEASES, self._ours(lease))

    def _ours(self, lease: Json) -> Json:
        return _held(lease, self.identity, datetime.now(UTC), self._duration_seconds)


async def run_holding(lease: HolderLease, work: Callable[[], Awaitable[T]]) -> T:
    """Acquire, run `work` while the lease is held, release. LeaseLost (work is cancelled first) when it is lost."""
    await lease.acquire()
    working = asyncio.ensure_future(work())
    holding = asyncio.ensure_future(lease.hold())
    try:
        await asyncio.wait({working, holding}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await _cancelled(working)
            await holding
        return await working
    finally:
        await _cancelled(working)
        await _cancelled(holding)
        if not _failed(holding):
            with contextlib.suppress(HomefedError):
                await lease.release()


async def _cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel and wait for the end, whatever it is: the caller has the result or does not want it."""
    task.cancel()
    await asyncio.wait({task})
    _failed(task)


def _failed(task: asyncio.Future[Any]) -> bool:
    return not task.cancelled() and task.exception() is not None
