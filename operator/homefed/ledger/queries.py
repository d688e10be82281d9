"""What the service answers to readers. Each answer is of one moment: read in one view of the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from homefed.api import dsse
from homefed.api import ledger_answers as answers
from homefed.api.names import held_account
from homefed.core.ledger import MICRO_CREDIT
from homefed.core.ledger_reading import payload_digest, stored_header
from homefed.core.statement import conserved, figures
from homefed.core.times import to_rfc3339
from homefed.ledger.log import Log
from homefed.ledger.store import ACCOUNT_TYPES, Entry, Reader, StoredLeaf


async def leaf(reader: Reader, log: Log, kind: answers.LeafKind, identity: str) -> answers.StoredLeaf | None:
    """A leaf as it was signed, with the receipt that its sender got."""
    stored = await reader.leaf(identity)
    if stored is None or stored.kind != kind:
        return None
    envelope = json.loads(stored.envelope)
    given: dict[str, Any] = {
        "kind": kind,
        "id": identity,
        "digest": payload_digest(dsse.from_json(envelope)),
        "leaf_index": stored.leaf_index,
        "transaction": stored.transaction,
        "time": moment(stored.time),
        "envelope": envelope,
        "receipt": await log.receipt(reader, stored.leaf_index, stored.size),
    }
    state = await reader.claim_state(identity) if kind == "claim" else None
    return answers.StoredLeaf(**given | ({"state": state} if state else {}))


async def chain(reader: Reader, pool: str, account: str, sequence: int | None) -> answers.Chain | None:
    """The claim at a place of a chain, or the newest: then `cumulativePaid` is as of now, resolutions included."""
    if sequence is not None:
        stored = await reader.chain_claim(pool, account, sequence)
        return _chain(stored, None) if stored else None
    head = await reader.chain_head(pool, account)
    stored = await reader.leaf(head.claim_id) if head else None
    return _chain(stored, head.sums.paid) if head and stored else None


def _chain(stored: StoredLeaf, paid: int | None) -> answers.Chain:
    header, envelope = stored_header(stored.envelope), json.loads(stored.envelope)
    return answers.Chain(
        claim=stored.id,
        sequence=header.sequence,
        digest=payload_digest(dsse.from_json(envelope)),
        cumulative_paid=header.cumulative_paid if paid is None else str(paid),
        envelope=envelope,
    )


async def balance(reader: Reader, account: str) -> answers.AccountBalance:
    return _balance(account, await reader.balances(account))


async def accounts(reader: Reader, prefix: str, after: str, limit: int) -> answers.Accounts:
    listed = await reader.accounts(prefix, after, limit)
    return answers.Accounts(
        size=await reader.size(),
        accounts=[_balance(name, balances) for name, balances in listed],
        next=listed[-1][0] if len(listed) == limit else None,
    )


async def statement(reader: Reader, account: str, before: int, limit: int) -> answers.Statement:
    """Signs are the owner's: what a contributor has to get, what a consumer owes; what does not apply is 0."""
    kind, _, owner = account.partition(":")
    held = await _held(reader, owner) if kind == "contributor" else 0
    found = figures(account, await reader.balances(account), held, await reader.contributor_sums(account))
    entries = await reader.account_entries(account, before, limit)
    return answers.Statement(
        account=account,
        size=await reader.size(),
        balance=str(found.balance),
        due=str(found.due),
        charged=str(found.charged),
        paid=str(found.paid),
        held=str(found.held),
        released=str(found.released),
        dust=str(found.dust),
        pending=str(found.pending),
        usage=_texts(found.usage),
        entries=[_entry(entry) for entry in entries],
        next=entries[-1].transaction if len({entry.transaction for entry in entries}) == limit else None,
    )


async def totals(reader: Reader) -> answers.Totals:
    found = await reader.totals()
    money = _by_type(found.balances.get(MICRO_CREDIT, {}))
    return answers.Totals(
        size=found.size,
        claims=found.claims,
        charged=str(found.sums.charged),
        sums=answers.Sums(**{name: str(getattr(found.sums, name)) for name in answers.Sums.model_fields}),
        accounts={kind: str(amount) for kind, amount in money.items()},
        units={unit: _texts(_by_type(balances)) for unit, balances in sorted(found.balances.items())},
        supply=str(sum(amount for amount in money.values() if amount > 0)),
        conserved=conserved(found.balances, found.sums),
    )


def consumer_lines(body: bytes, digest: str, accounts: frozenset[str]) -> answers.ConsumerLines:
    """Of a lines part, what concerns these accounts; without the salt, by which the others' could be guessed."""
    part = json.loads(body)
    own = [line for line in part["lines"] if line["consumer"] in accounts]
    return answers.ConsumerLines(claim=part["claim"], part=part["part"], digest=digest, lines=own)


def identity_of(leaf: bytes) -> str:
    """The id that a stored leaf is held under."""
    return str(json.loads(dsse.from_json(json.loads(leaf)).payload)["id"])


def moment(seconds: int) -> str:
    """RFC 3339 of seconds since the epoch."""
    return to_rfc3339(datetime.fromtimestamp(seconds, UTC))


async def _held(reader: Reader, owner: str) -> int:
    federation, _, home = owner.partition("/")
    return (await reader.balances(held_account(federation, home))).get(MICRO_CREDIT, 0)


def _by_type(balances: Mapping[str, int]) -> dict[str, int]:
    return {kind: balances.get(kind, 0) for kind in ACCOUNT_TYPES}


def _texts(amounts: Mapping[str, int]) -> dict[str, str]:
    return {name: str(amount) for name, amount in sorted(amounts.items())}


def _balance(account: str, balances: Mapping[str, int]) -> answers.AccountBalance:
    own = balances.get(MICRO_CREDIT, 0)
    return answers.AccountBalance(account=account, balance=str(own), balances=_texts(balances))


def _entry(entry: Entry) -> answers.StatementEntry:
    return answers.StatementEntry(
        transaction=entry.transaction,
        time=moment(entry.time),
        unit=entry.unit,
        amount=str(entry.amount),
        kind=entry.kind,
        claim=entry.claim,
        pool=entry.pool,
        window_start=entry.window_start,
        window_end=entry.window_end,
    )
