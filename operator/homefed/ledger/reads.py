"""Handlers of what is read: documents, lines, accounts, proofs. Who may read what is said in `access`."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from homefed.api import ledger_answers as answers
from homefed.api.dsse import fingerprint
from homefed.api.errors import Forbidden, Invalid
from homefed.core.ledger_reading import stored_header
from homefed.ledger import queries
from homefed.ledger.access import Access, Reading
from homefed.ledger.exchange import Exchange, answer, found
from homefed.ledger.log import Log
from homefed.ledger.store import Reader, Store
from homefed.ledger.submissions import part_number

DEFAULT_LIMIT: Final = 100
_EVERYTHING: Final = 2**53


@dataclass(frozen=True)
class Reads:
    """Handlers are named as the operations of the route table."""

    store: Store
    log: Log
    access: Access

    async def get_claim(self, exchange: Exchange) -> web.Response:
        return await self._leaf(exchange, "claim")

    async def get_resolution(self, exchange: Exchange) -> web.Response:
        return await self._leaf(exchange, "resolution")

    async def get_floor(self, exchange: Exchange) -> web.Response:
        return await self._leaf(exchange, "floor")

    async def get_part(self, exchange: Exchange) -> web.Response:
        """Whole to submitters and to the home of the claim; to others the lines of their own account."""
        seen = await self._seen(exchange)
        claim, number = exchange.texts["claim"], part_number(exchange)
        async with self.store.reading() as reader:
            if seen.role == "home" and not await _is_of(reader, claim, seen):
                raise Forbidden(f"claim {claim} is not of this home")
            part = found(await reader.part(claim, number), f"lines part {number} of claim {claim}")
        if seen.role == "consumer":
            return answer(queries.consumer_lines(part.body, part.digest, seen.accounts))
        return answer(part.body)

    async def list_accounts(self, exchange: Exchange) -> web.Response:
        prefix, after = exchange.texts.get("prefix", ""), exchange.texts.get("after", "")
        limit = _limit(exchange)
        return answer(await self.store.read(lambda reader: queries.accounts(reader, prefix, after, limit)))

    async def get_balance(self, exchange: Exchange) -> web.Response:
        return answer(await self.store.read(lambda reader: queries.balance(reader, exchange.texts["account"])))

    async def get_statement(self, exchange: Exchange) -> web.Response:
        account = exchange.texts["account"]
        (await self._seen(exchange)).require(account)
        before, limit = exchange.numbers.get("before", _EVERYTHING), _limit(exchange)
        return answer(await self.store.read(lambda reader: queries.statement(reader, account, before, limit)))

    async def get_chain(self, exchange: Exchange) -> web.Response:
        pool, account = exchange.texts["pool"], exchange.texts["account"]
        sequence = exchange.numbers.get("sequence")
        place = await self.store.read(lambda reader: queries.chain(reader, pool, account, sequence))
        return answer(found(place, f"claim of {account} in pool {pool} at that place"))

    async def get_totals(self, _: Exchange) -> web.Response:
        return answer(await self.store.read(queries.totals))

    async def get_inclusion(self, exchange: Exchange) -> web.Response:
        leaf, size = exchange.numbers["leaf"], self._size(exchange, "size")
        if leaf >= size:
            raise Invalid(f"leaf: {leaf}, but a tree of {size} leaves was asked about", reason="InvalidQuery")
        hashes = await self.store.read(lambda reader: self.log.inclusion(reader, leaf, size))
        return answer(answers.InclusionProof(leaf_index=leaf, tree_size=size, hashes=_texts(hashes)))

    async def get_consistency(self, exchange: Exchange) -> web.Response:
        first, second = exchange.numbers["first"], self._size(exchange, "second")
        if first > second:
            raise Invalid(f"first: {first}, more than the {second} leaves of the second tree", reason="InvalidQuery")
        hashes = await self.store.read(lambda reader: self.log.consistency(reader, first, second))
        return answer(answers.ConsistencyProof(first=first, second=second, hashes=_texts(hashes)))

    async def get_key(self, _: Exchange) -> web.Response:
        key = self.log.vkey
        text = base64.b64encode(key.public).decode()
        keyid = fingerprint(key.public)
        return answer(answers.LedgerKey(keyid=keyid, public_key=text, origin=self.log.origin, verifier=key.text()))

    async def _leaf(self, exchange: Exchange, kind: answers.LeafKind) -> web.Response:
        identity = exchange.texts[kind]
        stored = await self.store.read(lambda reader: queries.leaf(reader, self.log, kind, identity))
        return answer(found(stored, f"{kind} {identity}"))

    async def _seen(self, exchange: Exchange) -> Reading:
        return await self.access.reader(exchange.credentials(), exchange.texts.get("namespace"))

    def _size(self, exchange: Exchange, name: str) -> int:
        """Of a tree; the newest that is published where none is given. Errors: Invalid for one that is not."""
        size = exchange.numbers.get(name, self.log.published.size)
        if size > self.log.published.size:
            raise Invalid(
                f"{name}: {size}, but the newest checkpoint has {self.log.published.size} leaves", reason="InvalidQuery"
            )
        return size


async def _is_of(reader: Reader, claim: str, seen: Reading) -> bool:
    stored = await reader.leaf(claim)
    return stored is not None and stored.kind == "claim" and seen.sees(stored_header(stored.envelope).account)


def _limit(exchange: Exchange) -> int:
    return exchange.numbers.get("limit", DEFAULT_LIMIT)


def _texts(hashes: Iterable[bytes]) -> list[str]:
    return [base64.b64encode(one).decode() for one in hashes]
