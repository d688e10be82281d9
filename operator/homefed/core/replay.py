"""The ledger's state as an auditor finds it: from the leaves alone, by arithmetic of its own.

What is wrong becomes a finding and the replay goes on behind it: one forged leaf is one finding, not the rest of the
log. Memory: about 100 bytes per leaf, and what accounts and chains take.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from homefed.api.names import held_account
from homefed.core.audit_leaf import (
    BundleFacts,
    ClaimFacts,
    FloorFacts,
    LeafFacts,
    Moves,
    ResolutionFacts,
)
from homefed.core.id_index import IdIndex
from homefed.core.ledger import MAX_BALANCE, MICRO_CREDIT, PENDING
from homefed.core.merkle import Frontier

MAX_FINDINGS: Final = 1000
MONEY: Final = ("charged", "paid", "held", "released", "fee", "dust")

POSTED: Final = 1
PENDED: Final = 2
VOID: Final = 3
REVERSED: Final = 4
REVERSAL: Final = 5
STATES: Final = {POSTED: "posted", PENDED: "pending", VOID: "void", REVERSED: "reversed", REVERSAL: "reversal"}


class Discrepancy(NamedTuple):
    """One thing that is not as it must be. `code` is CamelCase and stable."""

    code: str
    message: str
    leaf: int | None = None
    id: str = ""
    """Of the claim, resolution or floor; empty where it is of none."""


@dataclass
class Findings:
    """The first thousand, and how many there are of each code."""

    shown: list[Discrepancy] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def add(self, code: str, message: str, leaf: int | None = None, identity: str = "") -> None:
        self.counted[code] += 1
        if len(self.shown) < MAX_FINDINGS:
            self.shown.append(Discrepancy(code, message, leaf, identity))


class Movement(NamedTuple):
    """One transaction of the ledger: what one leaf moved, and of which claim."""

    leaf: int
    claim: str
    facts: ClaimFacts
    state: Literal["posted", "pending", "voided", "reversal"]
    moves: Moves


@dataclass
class Chain:
    """The newest claim of one (pool, contributor account)."""

    sequence: int = 0
    digest: bytes = b""
    paid: int = 0
    """Σ paid of what is posted and not reversed."""
    held: int = 0
    """Σ held − released of the same."""


class Waiting(NamedTuple):
    """A pending claim."""

    claim: str
    facts: ClaimFacts


Listener = Callable[[LeafFacts, Movement | None], None]


class Replay:
    """Feed it the bundles in order: `extend`. What it says then holds for the first `size` leaves."""

    def __init__(self, findings: Findings, listener: Listener | None = None) -> None:
        self.findings = findings
        self.frontier = Frontier()
        self.tiles: dict[int, bytearray] = {}
        """Tile level ≥ 1 → its hashes, concatenated."""
        self.kinds: Counter[str] = Counter()
        self.balances: dict[tuple[str, str], int] = {}
        """Account and unit → balance."""
        self.sums: Counter[str] = Counter()
        """charged, paid … over all claims that are posted and not reversed, µcredit."""
        self.chains: dict[tuple[str, str], Chain] = {}
        self.waiting: dict[int, Waiting] = {}
        self._listener = listener
        self._floors: dict[str, FloorFacts] = {}
        self._ids = IdIndex()
        self._states = array("B")
        self._fingerprints = bytearray()

    @property
    def size(self) -> int:
        return self.frontier.size

    def extend(self, bundle: BundleFacts) -> None:
        """Take the next leaves; `bundle.first` is `size`."""
        if bundle.fault is not None:
            code, message = bundle.fault
            self.findings.add(code, message, bundle.first)
        growth = self.frontier.extend(bundle.hashes)
        self.frontier = growth.frontier
        for node in growth.tiles:
            self.tiles.setdefault(node.level, bytearray()).extend(node.hash)
        for leaf in bundle.leaves:
            movement = self._leaf(leaf)
            if self._listener is not None:
                self._listener(leaf, movement)

    def state_of(self, leaf: int) -> str:
        """What has become of the claim in that leaf; empty where it holds none."""
        return STATES.get(self._states[leaf], "")

    def find(self, identity: str) -> int | None:
        """The leaf of an id."""
        return self._ids.find(bytes.fromhex(identity))

    def _leaf(self, leaf: LeafFacts) -> Movement | None:
        self._states.append(0)
        self._fingerprints += bytes(16)
        self.kinds[leaf.kind or "unreadable"] += 1
        if leaf.fault is not None:
            self.findings.add(*leaf.fault, leaf.leaf_index, leaf.id)
            return None
        earlier = self._ids.add(bytes.fromhex(leaf.id), leaf.leaf_index)
        if earlier is not None:
            self.findings.add("IdTwice", f"the id is that of leaf {earlier}", leaf.leaf_index, leaf.id)
            return None
        match leaf.body:
            case ClaimFacts() as claim:
                return self._claim(leaf, claim)
            case ResolutionFacts() as resolution:
                return self._resolution(leaf, resolution)
            case FloorFacts() as floor:
                self._floor(leaf, floor)
        return None

    def _claim(self, leaf: LeafFacts, claim: ClaimFacts) -> Movement:
        self._check_revision(leaf, claim)
        self._check_chain(leaf, claim)
        if self._floors and not claim.reverses:
            self._check_floors(leaf, claim)
        self._move(leaf, claim.moves)
        self._check_held(leaf, claim)
        self._fingerprints[16 * leaf.leaf_index : 16 * leaf.leaf_index + 16] = claim.fingerprint
        if claim.phase == "pending":
            self._states[leaf.leaf_index] = PENDED
            self.waiting[leaf.leaf_index] = Waiting(leaf.id, claim)
            return Movement(leaf.leaf_index, leaf.id, claim, "pending", claim.moves)
        self._states[leaf.leaf_index] = REVERSAL if claim.reverses else POSTED
        self._count(claim, -1 if claim.reverses else 1)
        return Movement(leaf.leaf_index, leaf.id, claim, "reversal" if claim.reverses else "posted", claim.moves)

    def _check_revision(self, leaf: LeafFacts, claim: ClaimFacts) -> None:
        """At most one claim of a window counts: the next revision takes it back, or comes after it was taken back."""
        if not claim.revision:
            return
        before = self._ids.find(claim.revised)
        state = self._states[before] if before is not None else 0
        if before is None or not state:
            message = f"revision {claim.revision}, but the one before, {claim.revised.hex()}, is not in the log"
            self.findings.add("RevisionMissing", message, leaf.leaf_index, leaf.id)
        elif not claim.reverses:
            if state not in (VOID, REVERSAL):
                message = f"takes the place of leaf {before}, which is {STATES[state]}"
                self.findings.add("RevisionConflict", message, leaf.leaf_index, leaf.id)
        elif state != POSTED:
            message = f"takes back leaf {before}, which is {STATES[state]}"
            self.findings.add("NotReversible", message, leaf.leaf_index, leaf.id)
        else:
            self._states[before] = REVERSED
            if self._fingerprints[16 * before : 16 * before + 16] != claim.fingerprint:
                message = f"takes back leaf {before}, but with other amounts"
                self.findings.add("ReversalDiffers", message, leaf.leaf_index, leaf.id)

    def _check_chain(self, leaf: LeafFacts, claim: ClaimFacts) -> None:
        """Reported once where it breaks: what follows is compared with the claim that broke it."""
        chain = self.chains.setdefault((claim.pool, claim.account), Chain())
        more = 0 if claim.phase == "pending" else -claim.money[1] if claim.reverses else claim.money[1]
        where = f"of {claim.account} in pool {claim.pool}"
        if claim.sequence != chain.sequence + 1:
            message = f"sequence {claim.sequence}, but the chain {where} is at {chain.sequence}: a claim is missing"
            self.findings.add("ChainBroken", message, leaf.leaf_index, leaf.id)
        elif claim.previous != chain.digest:
            message = f"previousDigest is not that of claim {chain.sequence} {where}"
            self.findings.add("ChainBroken", message, leaf.leaf_index, leaf.id)
        elif claim.cumulative_paid != chain.paid + more:
            message = f"cumulativePaid {claim.cumulative_paid}, but {chain.paid + more} is the sum {where}"
            self.findings.add("ChainBroken", message, leaf.leaf_index, leaf.id)
        chain.sequence, chain.digest, chain.paid = claim.sequence, leaf.digest, claim.cumulative_paid
        chain.held += 0 if claim.phase == "pending" else -_held(claim) if claim.reverses else _held(claim)
        if claim.held_back is not None and claim.held_back != chain.held:
            message = f"heldBack says {claim.held_back} µcredit, but {chain.held} are held {where}"
            self.findings.add("HeldBackDiffers", message, leaf.leaf_index, leaf.id)

    def _check_floors(self, leaf: LeafFacts, claim: ClaimFacts) -> None:
        for account, unit, amount in claim.moves:
            floor = self._floors.get(account)
            if floor is None or floor.floor is None or unit not in (MICRO_CREDIT, PENDING):
                continue
            after = self._balance(account, MICRO_CREDIT) + self._balance(account, PENDING) + amount
            if after < floor.floor:
                message = f"takes {account} to {after} µcredit, below its floor {floor.floor}"
                self.findings.add("BelowFloor", message, leaf.leaf_index, leaf.id)

    def _move(self, leaf: LeafFacts, moves: Moves) -> None:
        total: dict[str, int] = {}
        for account, unit, amount in moves:
            after = self.balances[account, unit] = self.balances.get((account, unit), 0) + amount
            total[unit] = total.get(unit, 0) + amount
            if not -MAX_BALANCE <= after <= MAX_BALANCE:
                self.findings.add("BalanceRange", f"{account} has {after} {unit}", leaf.leaf_index, leaf.id)
        if any(total.values()):
            self.findings.add("NotConserved", f"the transfers sum to {total}, not to zero", leaf.leaf_index, leaf.id)

    def _check_held(self, leaf: LeafFacts, claim: ClaimFacts) -> None:
        _, _, held, released, _, _ = claim.money
        if not held and not released:
            return
        account = held_account(*_federation_and_home(claim.account))
        if (balance := self._balance(account, MICRO_CREDIT)) < 0:
            message = f"{account} is at {balance} µcredit: more was released than was held"
            self.findings.add("NotHeld", message, leaf.leaf_index, leaf.id)

    def _resolution(self, leaf: LeafFacts, resolution: ResolutionFacts) -> Movement | None:
        index = self._ids.find(resolution.claim)
        waiting = self.waiting.pop(index, None) if index is not None else None
        if index is None or waiting is None:
            state = STATES.get(self._states[index], "no claim") if index is not None else "not in the log"
            message = f"resolves {resolution.claim.hex()}, which is {state}"
            self.findings.add("NotPending", message, leaf.leaf_index, leaf.id)
            return None
        post, claim = resolution.outcome == "post", waiting.facts
        self._states[index] = POSTED if post else VOID
        moves = claim.posted if post else claim.voided
        self._move(leaf, moves)
        if post:
            chain = self.chains[claim.pool, claim.account]
            chain.paid, chain.held = chain.paid + claim.money[1], chain.held + _held(claim)
            self._count(claim, 1)
        return Movement(leaf.leaf_index, waiting.claim, claim, "posted" if post else "voided", moves)

    def _floor(self, leaf: LeafFacts, floor: FloorFacts) -> None:
        before = self._floors.get(floor.account)
        expected = before.sequence + 1 if before else 1
        if floor.sequence != expected:
            message = f"floor {floor.sequence} of {floor.account}, but the next is {expected}"
            self.findings.add("ChainBroken", message, leaf.leaf_index, leaf.id)
        self._floors[floor.account] = floor

    def _count(self, claim: ClaimFacts, sign: int) -> None:
        for name, amount in zip(MONEY, claim.money, strict=True):
            self.sums[name] += sign * amount

    def _balance(self, account: str, unit: str) -> int:
        return self.balances.get((account, unit), 0)


def _held(claim: ClaimFacts) -> int:
    """What it adds to what is held of its chain."""
    _, _, held, released, _, _ = claim.money
    return held - released


def _federation_and_home(account: str) -> tuple[str, str]:
    federation, _, home = account.partition(":")[2].rpartition("/")
    return federation, home
