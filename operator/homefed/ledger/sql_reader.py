"""`Reader` over any database: each method asks the query of its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

from homefed.core.ledger import ChainHead, Sums
from homefed.core.ledger_state import FloorHead, State
from homefed.ledger import sql_queries as queries
from homefed.ledger.sql_queries import Query
from homefed.ledger.store import Entry, StoredLeaf, StoredPart, Totals

T = TypeVar("T")
_LAST_CHARACTER = "\U0010ffff"


class SqlReader(ABC):
    """See `Reader`; a store says how a query is asked."""

    @abstractmethod
    async def _ask(self, query: Query[T], *parameters: Any) -> T:
        """Errors: StoreFailed."""

    async def size(self) -> int:
        return await self._ask(queries.SIZE)

    async def leaf(self, identity: str) -> StoredLeaf | None:
        return await self._ask(queries.LEAF, bytes.fromhex(identity))

    async def claim_state(self, claim: str) -> State | None:
        return await self._ask(queries.CLAIM_STATE, bytes.fromhex(claim))

    async def chain_head(self, pool: str, account: str) -> ChainHead | None:
        return await self._ask(queries.CHAIN_HEAD, pool, account)

    async def chain_claim(self, pool: str, account: str, sequence: int) -> StoredLeaf | None:
        return await self._ask(queries.CHAIN_CLAIM, pool, account, sequence)

    async def part(self, claim: str, number: int) -> StoredPart | None:
        return await self._ask(queries.PART, bytes.fromhex(claim), number)

    async def floor(self, account: str) -> FloorHead | None:
        return await self._ask(queries.FLOOR, account)

    async def balances(self, account: str) -> dict[str, int]:
        return await self._ask(queries.BALANCES, account)

    async def accounts(self, prefix: str, after: str, limit: int) -> list[tuple[str, dict[str, int]]]:
        return await self._ask(queries.ACCOUNTS, after, prefix, prefix + _LAST_CHARACTER, limit)

    async def account_entries(self, account: str, before: int, limit: int) -> list[Entry]:
        return await self._ask(queries.ACCOUNT_ENTRIES, account, before - 1, limit)

    async def contributor_sums(self, account: str) -> Sums:
        return await self._ask(queries.CONTRIBUTOR_SUMS, account)

    async def totals(self) -> Totals:
        return await self._ask(queries.TOTALS)

    async def entries(self, start: int, count: int) -> list[bytes]:
        return await self._ask(queries.ENTRIES, start, start + count)

    async def leaf_hashes(self, start: int, count: int) -> bytes:
        return await self._ask(queries.LEAF_HASHES, start, start + count)

    async def nodes(self, level: int, start: int, count: int) -> bytes:
        return await self._ask(queries.NODES, level, start, start + count)

    async def checkpoint(self) -> tuple[int, str] | None:
        return await self._ask(queries.CHECKPOINT)

    async def checkpoint_at(self, size: int) -> str | None:
        return await self._ask(queries.CHECKPOINT_AT, size)

    async def signed_between(self, low: int, high: int) -> bool:
        return await self._ask(queries.SIGNED_BETWEEN, low, high)

    async def cosignatures(self, size: int) -> list[str]:
        return await self._ask(queries.COSIGNATURES, size)

    async def newest_cosigned(self) -> int | None:
        return await self._ask(queries.NEWEST_COSIGNED)
