"""The claims of one account in a stretch of time, with their lines where the owner may read them.

    found = await read_postings(reader, "contributor:fed/UID", since)

Lines are those that the header holds the digests of; the ledger's signatures are not looked at (`homefed audit` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from homefed.api import dsse
from homefed.api import ledger_answers as answers
from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.errors import Invalid, NotFound, Refused
from homefed.api.meta import parse
from homefed.core.audit_lines import read_lines
from homefed.core.earnings import Posting, State, with_reversed_lines
from homefed.core.ledger_checks import check_parts
from homefed.core.ledger_reading import read_part
from homefed.core.windows import seconds

AT_ONCE: Final = 8
MAX_CLAIMS: Final = 20_000
T = TypeVar("T")
Progress = Callable[[int, int], None]


class Reader(Protocol):
    """What is read of a ledger; `LogReader` has it."""

    async def statement(self, account: str, *, before: int | None = None, namespace: str = "") -> answers.Statement: ...

    async def leaf(self, kind: str, identity: str) -> answers.StoredLeaf: ...

    async def part(self, claim: str, number: int) -> bytes: ...

    async def consumer_lines(self, claim: str, number: int, namespace: str) -> answers.ConsumerLines: ...


@dataclass(frozen=True)
class Statement:
    """µcredit, but the postings: of windows that begin at `since` or later, oldest first."""

    due: int
    held: int
    pending: int
    postings: tuple[Posting, ...]
    without_lines: int
    """Claims whose lines are deleted, their retention having ended, or were not asked for."""


async def read_postings(
    reader: Reader,
    account: str,
    since: int,
    *,
    namespace: str = "",
    most_lines: int = MAX_CLAIMS,
    progress: Progress = lambda done, size: None,
) -> Statement:
    """Of the newest `most_lines` claims with lines: a ledger answers so many signed requests of a home at a time only.

    Errors: Transient, Forbidden and Unauthorised of the ledger; Invalid where lines are not those of the header.
    """
    first, claims = await _claims(reader, account, since, namespace)
    with_lines = set(claims[:most_lines])
    done = 0

    async def one(claim: str) -> Posting:
        nonlocal done
        found = await _posting(reader, claim, namespace, lines=claim in with_lines)
        done += 1
        progress(done, len(claims))
        return found

    postings = await _gather(claims, one)
    postings.sort(key=lambda posting: (posting.header.window_end, posting.header.pool, posting.header.sequence))
    return Statement(
        due=int(first.due),
        held=int(first.held),
        pending=int(first.pending),
        postings=tuple(with_reversed_lines(postings)),
        without_lines=sum(one.lines is None for one in postings),
    )


async def _claims(reader: Reader, account: str, since: int, namespace: str) -> tuple[answers.Statement, list[str]]:
    """Ids of the claims that have moved the account, of windows from `since` on. The newest entries come first, and no
    claim is entered before its window has ended."""
    first = page = await reader.statement(account, namespace=namespace)
    found: dict[str, None] = {}
    while True:
        found |= dict.fromkeys(entry.claim for entry in page.entries if seconds(entry.window_start) >= since)
        if page.next is None or any(seconds(entry.time) < since for entry in page.entries):
            return first, [*found]
        if len(found) > MAX_CLAIMS:
            raise Refused(f"{account} has more than {MAX_CLAIMS} claims in this time", reason="TooManyClaims")
        page = await reader.statement(account, before=page.next, namespace=namespace)


async def _posting(reader: Reader, claim: str, namespace: str, *, lines: bool) -> Posting:
    leaf = await reader.leaf("claim", claim)
    envelope = dsse.from_json(leaf.envelope)
    header = parse(ClaimHeader, dsse.document_of(envelope), where="claim")
    if header.id != claim:
        raise Invalid(f"the ledger answered for claim {claim} with {header.id}", reason="WrongClaim")
    state: State = leaf.state or "posted"
    posting = Posting(header, state)
    if not header.parts:
        return replace(posting, lines=None if header.reverses else ())
    if not lines:
        return posting
    try:
        own = await (_own_lines(reader, header, namespace) if namespace else _all_lines(reader, header))
    except NotFound:
        return posting
    return replace(posting, lines=tuple(own))


async def _all_lines(reader: Reader, header: ClaimHeader) -> list[Line]:
    bodies = [await reader.part(header.id, number) for number in range(1, len(header.parts) + 1)]
    check_parts(header, {number: read_part(body, header.id, number) for number, body in enumerate(bodies, 1)})
    return [line for body in bodies for line in read_lines(body)]


async def _own_lines(reader: Reader, header: ClaimHeader, namespace: str) -> list[Line]:
    parts = [await reader.consumer_lines(header.id, number, namespace) for number in range(1, len(header.parts) + 1)]
    return [parse(Line, line, where="line") for part in parts for line in part.lines]


async def _gather(claims: list[str], read: Callable[[str], Awaitable[T]]) -> list[T]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(claim: str) -> T:
        async with gate:
            return await read(claim)

    return [*await asyncio.gather(*(one(claim) for claim in claims))]
