"""What a ledger has signed, as one reader has seen it: every checkpoint must continue those before.

    history = History(key, fetch)
    await history.refresh()                 # the ledger's newest checkpoint
    await history.confirm(checkpoint)       # that of a receipt, older or newer

What is believed is `newest`, and what was proven to be of the same tree. Consistency proofs are made from the ledger's
tiles and checked here: a ledger cannot talk its way out.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from homefed.api.errors import Incident, Invalid
from homefed.core import checkpoint as checkpoints
from homefed.core import tlog_tiles, witness
from homefed.core.checkpoint import Checkpoint
from homefed.core.signed_note import VerifierKey
from homefed.core.witness import Head

CHECKPOINT_PATH: Final = "/checkpoint"
MAX_KNOWN: Final = 4096

Fetch = Callable[[str], Awaitable[bytes]]
"""Path below the ledger's address → content; raises what the network raises (Transient, NotFound …)."""


class History:
    """The history of one ledger. Incident with reason LedgerWentBack or LedgerForked: believe it no more."""

    def __init__(self, key: VerifierKey, fetch: Fetch, newest: Head | None = None) -> None:
        """`newest`: what was seen in an earlier life; None believes the first checkpoint that comes."""
        self.newest = newest
        self._key, self._fetch = key, fetch
        self._one_at_a_time = asyncio.Lock()
        self._known: OrderedDict[int, bytes] = OrderedDict()

    async def refresh(self) -> tuple[Checkpoint, str]:
        """The ledger's newest checkpoint, verified, and its signed text. A smaller one than seen is LedgerWentBack."""
        before = self.newest
        signed, found = await fetch_checkpoint(self._fetch, self._key)
        if before is not None and found.size < before.size:
            raise went_back(found, before)
        await self.confirm(found)
        return found, signed

    async def confirm(self, checkpoint: Checkpoint) -> None:
        """`checkpoint` (its signature verified already) is of the same history as all before."""
        async with self._one_at_a_time:
            await self._confirm(checkpoint)

    async def _confirm(self, checkpoint: Checkpoint) -> None:
        newest = self.newest
        if newest is None or newest.size == 0:
            self._adopt(Head(checkpoint.size, checkpoint.root))
        elif checkpoint.size >= newest.size:
            proof = await self._proof(newest.size, checkpoint.size)
            self._adopt(witness.follow(newest, checkpoint, proof))
        elif self._known.get(checkpoint.size) != checkpoint.root:
            proof = await self._proof(checkpoint.size, newest.size)
            later = Checkpoint(checkpoint.origin, newest.size, newest.root)
            witness.follow(Head(checkpoint.size, checkpoint.root), later, proof)
            self._remember(checkpoint.size, checkpoint.root)

    async def confirm_kept(self, checkpoint: Checkpoint) -> None:
        """The same for a checkpoint of a receipt that was kept: the ledger must have got so far at least."""
        if self.newest is None or self.newest.size < checkpoint.size:
            found, _ = await self.refresh()
            if found.size < checkpoint.size:
                raise went_back(found, Head(checkpoint.size, checkpoint.root))
        await self.confirm(checkpoint)

    async def _proof(self, old: int, new: int) -> list[bytes]:
        if old == new:
            return []
        tiles = sorted(tlog_tiles.consistency_tiles(old, new))
        contents = await asyncio.gather(*(self._fetch(f"/{tile.path()}") for tile in tiles))
        try:
            return tlog_tiles.consistency_proof(old, new, dict(zip(tiles, contents, strict=True)))
        except Invalid as error:
            raise Incident(f"{self._key.name}: {error.message}", reason="LedgerForked") from error

    def _adopt(self, head: Head) -> None:
        self.newest = head
        self._remember(head.size, head.root)

    def _remember(self, size: int, root: bytes) -> None:
        self._known[size] = root
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


async def fetch_checkpoint(fetch: Fetch, key: VerifierKey) -> tuple[str, Checkpoint]:
    """The ledger's newest checkpoint. Errors: Incident (WrongCheckpoint) where it is not signed by this key."""
    content = await fetch(CHECKPOINT_PATH)
    try:
        signed = content.decode()
        return signed, checkpoints.verify(signed, key)
    except (UnicodeDecodeError, Invalid) as error:
        raise Incident(
            f"the ledger's checkpoint is not one of {key.name}: {error}", reason="WrongCheckpoint"
        ) from error


def went_back(found: Checkpoint, seen: Head) -> Incident:
    return Incident(
        f"{found.origin} shows {found.size} leaves, after {seen.size} of them had been signed: was it restored from a"
        " backup?",
        reason="LedgerWentBack",
    )
