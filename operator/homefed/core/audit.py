"""What an audit says: comparisons of the replayed log with what the ledger signs and answers, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from homefed.api.canonical import canonical
from homefed.api.errors import Invalid
from homefed.api.ledger_answers import AccountBalance, StoredLeaf, Totals
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note, tlog_proof, tlog_tiles
from homefed.core.checkpoint import Checkpoint
from homefed.core.ledger import MICRO_CREDIT
from homefed.core.merkle import HASH_SIZE, Frontier, leaf_hash, subtree_root
from homefed.core.replay import MONEY, Findings, Replay
from homefed.core.signed_note import VerifierKey
from homefed.core.tlog_tiles import TILE_WIDTH, Tile

Outcome = Literal["ok", "findings", "unchecked"]
EXIT: Final[Mapping[str, int]] = {"clean": 0, "findings": 1, "unchecked": 2}


@dataclass
class Step:
    """One thing that was checked. `detail` is a sentence for a person."""

    name: str
    outcome: Outcome
    detail: str


@dataclass
class Report:
    """What an audit came to."""

    url: str
    origin: str
    checkpoint: Checkpoint | None = None
    signed: str = ""
    """The checkpoint as it was signed."""
    steps: list[Step] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    kinds: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)

    @property
    def verdict(self) -> Literal["clean", "findings", "unchecked"]:
        """Findings outweigh what could not be checked; clean is only what was checked whole."""
        if self.findings.counted:
            return "findings"
        return "unchecked" if any(step.outcome == "unchecked" for step in self.steps) or not self.steps else "clean"

    @property
    def holds(self) -> bool:
        """Whether this checkpoint is one to compare the next audit with."""
        sound = {step.name for step in self.steps if step.outcome == "ok"}
        return not self.findings.counted and sound >= {"checkpoint", "leaves", "tree", "history"}

    def dump(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "url": self.url,
            "origin": self.origin,
            "leaves": self.checkpoint.size if self.checkpoint else None,
            "root": self.checkpoint.root.hex() if self.checkpoint else None,
            "checkpoint": self.signed,
            "kinds": dict(self.kinds),
            "sums": {name: str(self.sums[name]) for name in MONEY},
            "steps": [{"name": step.name, "outcome": step.outcome, "detail": step.detail} for step in self.steps],
            "findings": [one._asdict() for one in self.findings.shown],
            "counted": dict(self.findings.counted),
        }


def open_checkpoint(signed: str, key: VerifierKey) -> Checkpoint:
    """The tree head of the log of that key. Errors: Invalid."""
    return checkpoints.verify(signed, key)


def cosigners(signed: str, key: VerifierKey, witnesses: Sequence[VerifierKey]) -> set[str]:
    """Names of the witnesses that have cosigned. Errors: Invalid where a cosignature under a known key is wrong."""
    return {one.name for one in signed_note.parse(signed).verify([key, *witnesses])} - {key.name}


def compare_root(replay: Replay, checkpoint: Checkpoint, findings: Findings) -> None:
    root = replay.frontier.root()
    if root != checkpoint.root:
        message = f"the {replay.size} leaves have root {root.hex()}, but signed is {checkpoint.root.hex()}"
        findings.add("RootDiffers", message)


def compare_tile(replay: Replay, tile: Tile, data: bytes, findings: Findings) -> None:
    """Whether a tile of level ≥ 1 is what the leaves give."""
    first = HASH_SIZE * tile.start
    if replay.tiles.get(tile.level, b"")[first : first + HASH_SIZE * tile.width] != data:
        leaf = tile.start << (8 * tile.level)
        findings.add("TileDiffers", f"{tile.path()} is not what the leaves give", leaf)


def compare_leaf_tile(tile: Tile, data: bytes, hashes: Sequence[bytes], skip: int, findings: Findings) -> None:
    """Whether a tile of level 0 holds the hashes of the leaves, the first `skip` of which were compared before."""
    for place, hashed in enumerate(hashes, skip):
        if data[HASH_SIZE * place : HASH_SIZE * (place + 1)] != hashed:
            leaf = tile.start + place
            findings.add("TileDiffers", f"{tile.path()} has another hash than leaf {leaf} itself", leaf)


def root_at(replay: Replay, size: int, tile: bytes) -> bytes:
    """The root of the first `size` leaves, 0 < size ≤ replay.size; `tile` has at least the level-0 hashes of the last
    bundle of those, which `owns` has accepted."""
    tiles: dict[Tile, bytes] = {}
    for wanted in tlog_tiles.frontier_tiles(size):
        source = tile if wanted.level == 0 else replay.tiles[wanted.level][HASH_SIZE * wanted.start :]
        tiles[wanted] = bytes(source[: HASH_SIZE * wanted.width])
    return tlog_tiles.frontier(size, tiles).root()


def owns(replay: Replay, number: int, hashes: Sequence[bytes]) -> bool:
    """Whether these are the hashes of all leaves of that bundle, as they were replayed."""
    if len(hashes) == TILE_WIDTH and (number + 1) * TILE_WIDTH <= replay.size:
        return subtree_root(b"".join(hashes)) == replay.tiles[1][HASH_SIZE * number : HASH_SIZE * (number + 1)]
    before = Frontier(number * TILE_WIDTH, replay.frontier.hashes[: (number * TILE_WIDTH).bit_count()])
    return before.size + len(hashes) == replay.size and before.extend(hashes).frontier == replay.frontier


def compare_totals(replay: Replay, totals: Totals, findings: Findings) -> None:
    """Both are of the same number of leaves."""
    by_kind: dict[str, Counter[str]] = {}
    for (account, unit), balance in replay.balances.items():
        by_kind.setdefault(unit, Counter())[account.partition(":")[0]] += balance
    said = {unit: {kind: int(amount) for kind, amount in kinds.items()} for unit, kinds in totals.units.items()}
    said[MICRO_CREDIT] = {kind: int(amount) for kind, amount in totals.accounts.items()}
    for unit in sorted({*by_kind, *said}):
        for kind in sorted({*by_kind.get(unit, ()), *said.get(unit, ())}):
            ours, theirs = by_kind.get(unit, Counter())[kind], said.get(unit, {}).get(kind, 0)
            if ours != theirs:
                findings.add("TotalsDiffer", f"{kind} accounts have {ours} {unit} by the leaves, {theirs} by totals")
    for name in MONEY:
        if replay.sums[name] != int(getattr(totals.sums, name)):
            message = f"{name}: {replay.sums[name]} µcredit by the leaves, {getattr(totals.sums, name)} by totals"
            findings.add("TotalsDiffer", message)
    if totals.claims != replay.kinds["claim"]:
        findings.add("TotalsDiffer", f"{replay.kinds['claim']} claims by the leaves, {totals.claims} by totals")
    if not totals.conserved:
        findings.add("NotConserved", "the ledger itself says that its books do not balance")


def compare_accounts(replay: Replay, accounts: Iterable[AccountBalance], findings: Findings) -> int:
    """Every account's balance in every unit, both of the same number of leaves. How many accounts there are."""
    said: dict[tuple[str, str], int] = {}
    names: set[str] = set()
    for one in accounts:
        names.add(one.account)
        said |= {(one.account, unit): int(amount) for unit, amount in one.balances.items()}
        if int(one.balance) != said.get((one.account, MICRO_CREDIT), 0):
            findings.add(
                "BalanceDiffers", f"{one.account}: balance {one.balance} is not that of its unit {MICRO_CREDIT}"
            )
    for account, unit in sorted({*said, *replay.balances}):
        ours, theirs = replay.balances.get((account, unit), 0), said.get((account, unit), 0)
        if ours != theirs:
            findings.add("BalanceDiffers", f"{account} has {ours} {unit} by the leaves, {theirs} by the ledger")
    return len(names)


def check_answer(answer: StoredLeaf, leaf: bytes, leaf_index: int, key: VerifierKey) -> Checkpoint:
    """Whether the ledger answers for an id what is in the log, with a receipt that proves it. The receipt's tree head.

    Errors: Invalid.
    """
    if (answer.leaf_index, answer.transaction) != (leaf_index, leaf_index + 1):
        message = f"the answer names leaf {answer.leaf_index} and transaction {answer.transaction}"
        raise Invalid(message, reason="WrongAnswer")
    if leaf_hash(canonical(answer.envelope)) != leaf_hash(leaf):
        raise Invalid("the answer's envelope is not the one in the log", reason="WrongAnswer")
    verified = tlog_proof.verify(answer.receipt, leaf, key)
    if verified.index != leaf_index:
        raise Invalid(f"the receipt is of leaf {verified.index}", reason="WrongReceipt")
    return verified.checkpoint


def sample(size: int, wanted: int | None) -> Sequence[int]:
    """Leaves to look at: all (None), or that many, evenly spread, first and last among them."""
    if wanted is None or wanted >= size:
        return range(size)
    if wanted <= 1:
        return range(size - wanted, size)
    return sorted({(size - 1) * place // (wanted - 1) for place in range(wanted)})
