"""The seam between the ledger and its database. tests/contracts/test_ledger_store.py is what every store must do.

A store is used by one writer and any number of readers. Times are integer seconds since the epoch, ids and digests hex
text, hashes 32 bytes, amounts integers of their unit.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from homefed.api.errors import HomefedError
from homefed.core.ledger import ChainHead, Sums
from homefed.core.ledger_reading import Kind
from homefed.core.ledger_state import Decision, FloorHead, Item, Snapshot, State
from homefed.core.merkle import TileNode

T = TypeVar("T")
ACCOUNT_TYPES: Final = ("consumer", "contributor", "dust", "fee", "held")


class StoreFailed(HomefedError):
    """The database cannot be trusted to hold what it is given (disk full, I/O error, damaged): stop the process."""

    default_reason = "StoreFailed"


class Contradiction(HomefedError):
    """The database's own constraints refused what the rules had accepted: nothing of it was written."""

    default_reason = "Contradiction"


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """The signed tree head of a batch, and the tile roots that the batch made complete."""

    size: int
    note: str
    nodes: Sequence[TileNode]


@dataclass(frozen=True, slots=True)
class StoredLeaf:
    """A durable leaf, with the very bytes that were signed."""

    kind: Kind
    id: str
    leaf_index: int
    size: int
    """Of the checkpoint that committed it: its receipt is an inclusion proof in that tree."""
    time: int
    hash: bytes
    """RFC 6962 leaf hash."""
    envelope: bytes

    @property
    def transaction(self) -> int:
        return self.leaf_index + 1


@dataclass(frozen=True, slots=True)
class StoredPart:
    digest: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an account, with the leaf that it follows from."""

    leaf_index: int
    time: int
    unit: str
    amount: int
    kind: Kind
    claim: str
    """Id of the claim; of a resolution: of the claim that it resolves."""
    pool: str
    window_start: str
    window_end: str

    @property
    def transaction(self) -> int:
        return self.leaf_index + 1


@dataclass(frozen=True, slots=True)
class Totals:
    size: int
    """Number of leaves that the figures are of."""
    claims: int
    sums: Sums
    """Over all claims that are posted and not reversed."""
    balances: Mapping[str, Mapping[str, int]]
    """Unit → account type → Σ balances; what no account has is left out."""


class Reader(Protocol):
    """One consistent view of what is committed. `start` and `count` are in leaves, or in nodes of a level; what lies
    beyond the end is left out. Errors of every method: StoreFailed."""

    async def size(self) -> int:
        """Number of leaves."""

    async def leaf(self, identity: str) -> StoredLeaf | None:
        """The leaf that is held under an id, of whatever kind."""

    async def claim_state(self, claim: str) -> State | None: ...

    async def chain_head(self, pool: str, account: str) -> ChainHead | None: ...

    async def chain_claim(self, pool: str, account: str, sequence: int) -> StoredLeaf | None:
        """The claim at a place of a chain."""

    async def part(self, claim: str, number: int) -> StoredPart | None: ...

    async def floor(self, account: str) -> FloorHead | None: ...

    async def balances(self, account: str) -> dict[str, int]:
        """Unit → balance, of the units that the account ever had."""

    async def accounts(self, prefix: str, after: str, limit: int) -> list[tuple[str, dict[str, int]]]:
        """Accounts and their balances per unit, in order of the names' code points, from `after` (exclusive)."""

    async def account_entries(self, account: str, before: int, limit: int) -> list[Entry]:
        """Of the newest `limit` transactions below number `before` that touch the account; newest first."""

    async def contributor_sums(self, account: str) -> Sums:
        """Over the contributor's claims that are posted and not reversed."""

    async def totals(self) -> Totals: ...

    async def entries(self, start: int, count: int) -> list[bytes]:
        """Stored leaves."""

    async def leaf_hashes(self, start: int, count: int) -> bytes:
        """32 bytes each, concatenated."""

    async def nodes(self, level: int, start: int, count: int) -> bytes:
        """The roots of full tiles at level ≥ 1, 32 bytes each, concatenated."""

    async def checkpoint(self) -> tuple[int, str] | None:
        """Size and signed note of the newest."""

    async def checkpoint_at(self, size: int) -> str | None: ...

    async def signed_between(self, low: int, high: int) -> bool:
        """Whether there is a checkpoint with low ≤ size < high."""

    async def cosignatures(self, size: int) -> list[str]:
        """The witnesses' signature lines under the checkpoint of that size, in order of their names."""

    async def newest_cosigned(self) -> int | None: ...


Change = Callable[[Snapshot], tuple[Decision, NewCheckpoint | None]]
"""What becomes of a batch: its leaves under their checkpoint (None when there are none), and its parts."""


class Store(Protocol):
    async def bind(self, federation: str, keyid: str) -> None:
        """Remember for whom and under which key this database signs; Refused when it says otherwise already."""

    async def write(self, batch: Sequence[Item], now: int, change: Change, durable: Callable[[], None]) -> None:
        """One transaction: what `change` needs to know is read, what it decides is appended, COMMIT; then `durable`.

        Both are called in a thread, `durable` only after the COMMIT; before it, whatever is raised undoes everything.
        Parts whose claim did not come within PART_SECONDS are forgotten first.

        Errors: Contradiction, when a constraint of the database is against it; StoreFailed; those of the two.
        """

    def reading(self) -> AbstractAsyncContextManager[Reader]:
        """Any number at once. Errors: StoreFailed."""

    async def read(self, work: Callable[[Reader], Coroutine[Any, Any, T]]) -> T:
        """What `work` makes of one such view. It waits for nothing but its reader, and may run in a thread.

        For answers that take several questions: a store with threads is handed all of them at once.
        """

    async def add_cosignature(self, size: int, name: str, line: str, time: int) -> bool:
        """Keep a witness's signature line; False when there is one of that name for that size already."""

    async def forget_lines(self, before: int, limit: int) -> int:
        """Delete up to `limit` lines parts of claims that were received before that time; how many there were."""

    async def close(self) -> None: ...
