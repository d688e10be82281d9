"""Deletes lines parts after their retention. The tree is untouched: headers hold digests, and digests stay.

Lines name consumers' pods and what they used: the personal part of a claim. Headers, which stay for ever, hold opaque
account ids, totals and salted digests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from homefed.ledger.metrics import Metrics
from homefed.ledger.store import Store

EVERY_SECONDS: Final = 3600.0
AT_ONCE: Final = 200
"""Parts per transaction: claims wait no longer than for one of these."""
_log = logging.getLogger(__name__)


async def forget_lines(store: Store, seconds: int, clock: Callable[[], int], metrics: Metrics) -> int:
    """One pass: delete the parts that came more than `seconds` ago and belong to a claim; how many there were."""
    before, deleted = clock() - seconds, 0
    while count := await store.forget_lines(before, AT_ONCE):
        deleted += count
        metrics.forgotten(count)
    if deleted:
        _log.info("%d lines parts deleted after %d days", deleted, seconds // 86_400)
    return deleted


async def keep_forgetting(store: Store, seconds: int, clock: Callable[[], int], metrics: Metrics) -> None:
    """A pass now and every hour, until cancelled. Errors: StoreFailed."""
    while True:
        await forget_lines(store, seconds, clock, metrics)
        await asyncio.sleep(EVERY_SECONDS)
