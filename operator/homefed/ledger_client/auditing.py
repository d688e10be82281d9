"""The audit of a ledger from outside, step by step; what each step compares is in `core.audit`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol

from homefed.api.claim_document import ClaimHeader
from homefed.api.errors import HomefedError, Invalid, NotFound, Refused, Transient
from homefed.api.ledger_answers import AccountBalance, Accounts, StoredLeaf, Totals
from homefed.api.rate_card import RateCard
from homefed.core import audit
from homefed.core.audit import Report, Step
from homefed.core.audit_leaf import LeafRules, name_of
from homefed.core.audit_lines import LinesAudit
from homefed.core.checkpoint import Checkpoint
from homefed.core.ledger_reading import stored_header
from homefed.core.merkle import EMPTY_ROOT, leaf_hash
from homefed.core.replay import Listener, Replay
from homefed.core.signed_note import VerifierKey
from homefed.core.tlog_tiles import TILE_WIDTH, decode_bundle, in_level, level_tiles
from homefed.ledger_client.replaying import LeafSource, Progress, cores, follow, spans

ROUNDS: Final = 5
"""How often a ledger that grows meanwhile is caught up with, before its balances count as not checked."""
AT_ONCE: Final = 16
"""Requests beside each other."""
MAX_ACCOUNTS: Final = 1_000_000
KEPT_BUNDLES: Final = 64


class Ledger(LeafSource, Protocol):
    """As `LogReader` has it, errors included."""

    async def checkpoint(self) -> str: ...

    async def cosigned(self) -> str: ...

    async def totals(self) -> Totals: ...

    async def accounts(self, after: str) -> Accounts: ...

    async def leaf(self, kind: str, identity: str) -> StoredLeaf: ...

    async def part(self, claim: str, number: int) -> bytes: ...


@dataclass(frozen=True)
class Scope:
    """What an audit is told."""

    url: str
    key: VerifierKey
    """The ledger's."""
    rules: LeafRules
    witnesses: Sequence[VerifierKey] = ()
    quorum: int = 0
    last: str = ""
    """The signed checkpoint of the audit before; empty for none."""
    receipts: int | None = 256
    """How many leaves to ask the receipt of; None: all."""
    lines: bool = False
    """Whether to read the lines parts, which needs a token."""
    lines_since: str = ""
    """RFC 3339 in UTC: claims whose windows end before may have lost their lines to retention."""
    jobs: int | None = None
    """Processes to read leaves in; None: one per core."""
    cards: Sequence[RateCard] = ()
    """Rate cards that the lines' prices are compared with."""


class Auditor:
    """One audit. Nothing that the ledger answers is believed; what contradicts the leaves is a finding."""

    def __init__(
        self,
        ledger: Ledger,
        scope: Scope,
        progress: Progress = lambda done, size: None,
        listener: Listener | None = None,
    ) -> None:
        """`listener` is told of every leaf, in order."""
        self.report = Report(scope.url, scope.key.name)
        self.replay = Replay(self.report.findings, listener)
        self._ledger = ledger
        self._scope = scope
        self._progress = progress
        self._signed = Checkpoint(scope.key.name, 0, EMPTY_ROOT)
        self._heads: list[Checkpoint] = []
        """All that were shown during this audit."""
        self._hashes: dict[int, bytes] = {}

    async def run(self) -> Report:
        """All steps. Never raises for what the ledger does: what cannot be checked is in the report."""
        if await self._step("checkpoint", self._checkpoint()) and await self._leaves():
            await self._step("balances", self._balances())
            await self._step("tree", self._tree())
            await self._step("history", self._history())
            if self._scope.quorum:
                await self._step("witnesses", self._witnesses())
            await self._step("receipts", self._receipts())
            if self._scope.lines:
                await self._step("lines", self._lines())
        self.report.kinds, self.report.sums = self.replay.kinds, self.replay.sums
        return self.report

    async def read(self) -> Replay:
        """The leaves alone, for what they say. Errors: Refused where they do not hold; Transient."""
        if await self._step("checkpoint", self._checkpoint()) and await self._leaves():
            await self._step("tree", self._tree())
        for step in self.report.steps:
            if step.outcome == "unchecked":
                raise Transient(f"{step.name}: {step.detail}")
        if self.report.findings.counted:
            one = self.report.findings.shown[0]
            count = self.report.findings.counted.total()
            raise Refused(f"{count} findings, first {one.code}: {one.message}; run homefed audit", reason="NotSound")
        return self.replay

    async def _step(self, name: str, work: Coroutine[Any, Any, str]) -> bool:
        """Whether the step came to its end."""
        whole, before = True, self.report.findings.counted.total()
        try:
            detail = await work
        except Invalid as error:
            self.report.findings.add(error.reason, error.message)
            detail, whole = "", False
        except HomefedError as error:
            self.report.steps.append(Step(name, "unchecked", f"{error.message} ({error.reason})"))
            return False
        found = self.report.findings.counted.total() - before
        noun = "1 finding" if found == 1 else f"{found} findings"
        self.report.steps.append(Step(name, "findings", noun) if found else Step(name, "ok", detail))
        return whole

    async def _checkpoint(self) -> str:
        head = await self._head()
        return f"{head.size} leaves, root {head.root.hex()}, signed by {head.origin}"

    async def _head(self) -> Checkpoint:
        """Fetch the newest, and from now on audit up to there."""
        signed = await self._ledger.checkpoint()
        head = audit.open_checkpoint(signed, self._scope.key)
        if head.size < self.replay.size:
            raise Invalid(f"{head.size} leaves are signed now, {self.replay.size} were before", reason="LedgerWentBack")
        self._signed = self.report.checkpoint = head
        self._heads.append(head)
        self.report.signed = signed
        return head

    async def _leaves(self) -> bool:
        """Whether all leaves are there."""
        with cores(self._size, self._scope.jobs) as executor:
            ended = await self._step("leaves", self._follow(executor))
        return ended and self.replay.size == self._size

    async def _follow(self, executor: Executor) -> str:
        await follow(self._ledger, self.replay, self._size, self._scope.rules, executor, self._progress)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.replay.kinds.items()))
        return f"{self.replay.size} leaves ({kinds or 'none'}): signatures, ids, chains, floors, conservation"

    async def _balances(self) -> str:
        """The ledger's own figures, of the same number of leaves: where it has grown meanwhile, it is followed."""
        for _ in range(ROUNDS):
            totals = await self._ledger.totals()
            accounts = await self._accounts(totals.size)
            if accounts is not None and totals.size == self.replay.size:
                audit.compare_totals(self.replay, totals, self.report.findings)
                count = audit.compare_accounts(self.replay, accounts, self.report.findings)
                return f"{count} accounts and the totals are those of the {totals.size} leaves"
            await self._catch_up(totals.size)
        raise Transient(f"the ledger grew {ROUNDS} times while it was read; try again when it is quieter")

    async def _catch_up(self, wanted: int) -> None:
        head = await self._head()
        if head.size < wanted:
            raise Invalid(f"totals are of {wanted} leaves, but only {head.size} are signed", reason="LedgerWentBack")
        with cores(head.size - self.replay.size, self._scope.jobs) as executor:
            await follow(self._ledger, self.replay, head.size, self._scope.rules, executor, self._progress)

    async def _accounts(self, size: int) -> list[AccountBalance] | None:
        """All of them; None where the pages are not of that many leaves."""
        found: list[AccountBalance] = []
        after = ""
        while True:
            page = await self._ledger.accounts(after)
            if page.size != size:
                return None
            found += page.accounts
            if page.next is None:
                return found
            if page.next <= after or len(found) > MAX_ACCOUNTS:
                raise Invalid("the pages of accounts do not end", reason="MalformedAnswer")
            after = page.next

    async def _tree(self) -> str:
        head, count = self._signed, 0
        audit.compare_root(self.replay, head, self.report.findings)
        level = 1
        while in_level(head.size, level):
            for tile in level_tiles(level, in_level(head.size, level)):
                audit.compare_tile(self.replay, tile, await self._ledger.tile(tile), self.report.findings)
                count += 1
            level += 1
        return f"the root is that of the leaves, as are {count} tiles above those of the leaves"

    async def _history(self) -> str:
        """What was signed at the audit before, and earlier in this one, is what the log begins with."""
        for head in self._heads[:-1]:
            await self._check_head(head, "a moment ago")
        if not self._scope.last:
            return "no audit before this one"
        last = audit.open_checkpoint(self._scope.last, self._scope.key)
        if last.size > self.replay.size:
            raise Invalid(f"{self.replay.size} leaves are signed now, {last.size} were before", reason="LedgerWentBack")
        await self._check_head(last, "at the audit before")
        return f"the {last.size} leaves of the audit before are the first of these"

    async def _witnesses(self) -> str:
        """Cosignatures come a little after the checkpoint: one that has enough need not be the newest."""
        for signed in (self.report.signed, await self._ledger.cosigned()):
            names = audit.cosigners(signed, self._scope.key, self._scope.witnesses)
            head = audit.open_checkpoint(signed, self._scope.key)
            await self._check_head(head, "with cosignatures")
            if len(names) >= self._scope.quorum:
                return f"{len(names)} of {len(self._scope.witnesses)} have cosigned the first {head.size} leaves"
        wanted = f"{self._scope.quorum} of {len(self._scope.witnesses)} witnesses are wanted"
        raise Transient(f"{wanted}, {', '.join(sorted(names)) or 'none'} have cosigned by now", reason="NoQuorum")

    async def _check_head(self, head: Checkpoint, when: str) -> None:
        """Errors: Invalid (LedgerForked) unless that tree is the beginning of this one."""
        root = await self._root_at(head.size)
        if root != head.root:
            message = f"{when} root {head.root.hex()} was signed for {head.size} leaves; these have {root.hex()}"
            raise Invalid(message, reason="LedgerForked")

    async def _root_at(self, size: int) -> bytes:
        if size > self.replay.size:
            raise Invalid(f"of {size} leaves, but only {self.replay.size} are signed", reason="LedgerWentBack")
        number, width = divmod(size, TILE_WIDTH)
        return audit.root_at(self.replay, size, await self._own_hashes(number) if width else b"")

    async def _own_hashes(self, number: int) -> bytes:
        """The leaf hashes of a bundle, concatenated: from the leaves, as tiles may be forged."""
        if number not in self._hashes:
            hashes = b"".join(map(leaf_hash, await self._own_entries(number)))
            if len(self._hashes) >= KEPT_BUNDLES:
                self._hashes.pop(next(iter(self._hashes)), None)
            self._hashes[number] = hashes
        return self._hashes[number]

    async def _own_entries(self, number: int) -> list[bytes]:
        """The leaves of a bundle, which must be those that were replayed."""
        start = number * TILE_WIDTH
        count = min(TILE_WIDTH, self.replay.size - start)
        entries = decode_bundle(await self._ledger.bundle(number, count))
        if not audit.owns(self.replay, number, [leaf_hash(entry) for entry in entries]):
            message = f"leaves {start} to {start + count - 1} are not what they were a moment ago"
            raise Invalid(message, reason="LeavesChanged")
        return entries

    async def _receipts(self) -> str:
        wanted = audit.sample(self.replay.size, self._scope.receipts)
        for number, places in groupby(wanted, lambda leaf: leaf // TILE_WIDTH):
            entries = await self._own_entries(number)
            for some in _batches([*places]):
                await asyncio.gather(*(self._receipt(leaf, entries[leaf % TILE_WIDTH]) for leaf in some))
        return f"{len(wanted)} receipts lead to signed trees that these leaves continue"

    async def _receipt(self, leaf: int, entry: bytes) -> None:
        try:
            kind, identity = name_of(entry)
        except Invalid:
            return  # named already when the leaf was read
        try:
            head = audit.check_answer(await self._ledger.leaf(kind, identity), entry, leaf, self._scope.key)
            await self._check_head(head, "in the receipt")
        except (Invalid, NotFound) as error:
            self.report.findings.add(error.reason, f"{kind}: {error.message}", leaf, identity)

    async def _lines(self) -> str:
        lines, claims = LinesAudit(self.report.findings, self._scope.cards), 0
        for span in spans(0, self.replay.size):
            for leaf, entry in enumerate(await self._own_entries(span.number), span.first):
                if self.replay.state_of(leaf):
                    claims += await self._claim_lines(lines, leaf, stored_header(entry))
                else:  # a claim may have been voided: lines that follow do not count it any more
                    lines.forget_all()
            self._progress(span.first + span.count, self.replay.size)
        known = f", {lines.prices.compared} of them by the rate cards given" if self._scope.cards else ""
        return f"{lines.lines} lines of {claims} claims are priced right{known}, and their readings join up"

    async def _claim_lines(self, lines: LinesAudit, leaf: int, header: ClaimHeader) -> bool:
        """Whether the claim has lines that could be read."""
        parts = await self._parts(header)
        if parts is None and header.window_end >= self._scope.lines_since:
            self.report.findings.add("PartMissing", "the ledger does not have its lines", leaf, header.id)
        if parts is None or header.reverses:
            lines.forget(header.pool, header.account)
            return False
        lines.claim(leaf, header, parts)
        return True

    async def _parts(self, header: ClaimHeader) -> list[bytes] | None:
        """None where one of them is deleted."""
        found: list[bytes] = []
        try:
            for some in _batches(range(1, len(header.parts) + 1)):
                found += await asyncio.gather(*(self._ledger.part(header.id, number) for number in some))
        except NotFound:
            return None
        return found

    @property
    def _size(self) -> int:
        return self._signed.size


def _batches(items: Sequence[int]) -> Iterator[Sequence[int]]:
    return (items[at : at + AT_ONCE] for at in range(0, len(items), AT_ONCE))
