"""A ledger as it shows itself to an auditor, in memory: leaves, what is signed over them, and what it answers.

Whatever is shown can be forged: a test changes one thing, and the audit has to name it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse
from homefed.api.claim_document import ClaimHeader
from homefed.api.errors import NotFound
from homefed.api.ledger_answers import AccountBalance, Accounts, StoredLeaf, Totals
from homefed.api.ledger_answers import Sums as ShownSums
from homefed.api.meta import parse
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note
from homefed.core.audit_leaf import HubKey, LeafRules
from homefed.core.checkpoint import Checkpoint
from homefed.core.ledger import Transfer, resolved, transfers
from homefed.core.merkle import Frontier, Node, inclusion_nodes, leaf_hash, subtree_root
from homefed.core.merkle import hashes_of as proof_hashes
from homefed.core.signed_note import VerifierKey
from homefed.core.tlog_proof import Proof
from homefed.core.tlog_tiles import Tile, encode_bundle
from homefed.ledger_client.auditing import Scope
from testbed.claims import FEDERATION, SignedClaim, SignedDocument, hub_key, public

ORIGIN = checkpoints.origin_of(FEDERATION)
KINDS = {dsse.CLAIM_TYPE: "claim", dsse.RESOLUTION_TYPE: "resolution", dsse.FLOOR_TYPE: "floor"}
MONEY = ("charged", "paid", "held", "released", "fee", "dust")


def ledger_key(seed: int = 1) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"ledger %d" % seed).digest())


def verifier(seed: int = 1) -> VerifierKey:
    return signed_note.verifier_key(ORIGIN, ledger_key(seed))


@dataclass
class ShownLog:
    """`batch` leaves are signed at a time; receipts are under the checkpoint of their batch."""

    leaves: list[bytes] = field(default_factory=list)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    key: Ed25519PrivateKey = field(default_factory=ledger_key)
    batch: int = 3
    asked: Counter[str] = field(default_factory=Counter)
    forged_balances: dict[tuple[str, str], int] = field(default_factory=dict)
    """(account, unit) → what is added to the balance that is shown."""
    grow: Callable[[], None] | None = None
    """Called before totals are shown."""

    def add(self, *documents: SignedClaim | SignedDocument) -> None:
        for document in documents:
            self.leaves.append(document.body)
            if isinstance(document, SignedClaim):
                self.parts |= {(document.id, number): body for number, body in enumerate(document.parts, 1)}

    def hashes(self) -> list[bytes]:
        return [leaf_hash(leaf) for leaf in self.leaves]

    def signed(self, size: int | None = None) -> str:
        size = len(self.leaves) if size is None else size
        root = Frontier().extend(self.hashes()[:size]).frontier.root()
        return checkpoints.sign(Checkpoint(ORIGIN, size, root), self.key)

    async def checkpoint(self) -> str:
        return self.signed()

    async def cosigned(self) -> str:
        raise NotFound("no checkpoint has been cosigned yet")

    async def tile(self, tile: Tile) -> bytes:
        self.asked["tile"] += 1
        return b"".join(
            self._node(Node(8 * tile.level, number)) for number in range(tile.start, tile.start + tile.width)
        )

    async def bundle(self, number: int, width: int) -> bytes:
        self.asked["bundle"] += 1
        return encode_bundle(self.leaves[256 * number : 256 * number + width])

    async def totals(self) -> Totals:
        if self.grow is not None:
            self.grow()
        units: dict[str, Counter[str]] = {}
        for (account, unit), balance in self.balances().items():
            units.setdefault(unit, Counter())[account.partition(":")[0]] += balance
        sums = {name: str(amount) for name, amount in self.sums().items()}
        said = {unit: {kind: str(amount) for kind, amount in kinds.items()} for unit, kinds in units.items()}
        return Totals(
            size=len(self.leaves),
            claims=sum(kind == "claim" for kind, _ in self.documents()),
            charged=sums["charged"],
            sums=ShownSums(**sums),
            accounts=said.get("ucredit", {}),
            units=said,
            supply="0",
            conserved=True,
        )

    async def accounts(self, after: str) -> Accounts:
        """Two on a page."""
        shown: dict[str, dict[str, str]] = {}
        for (account, unit), balance in sorted(self.balances().items()):
            shown.setdefault(account, {})[unit] = str(balance)
        names = [name for name in sorted(shown) if name > after]
        page = [
            AccountBalance(account=name, balance=shown[name].get("ucredit", "0"), balances=shown[name])
            for name in names[:2]
        ]
        return Accounts(size=len(self.leaves), accounts=page, next=names[1] if len(names) > 2 else None)

    async def leaf(self, kind: str, identity: str) -> StoredLeaf:
        self.asked["leaf"] += 1
        for index, (known, document) in enumerate(self.documents()):
            if (known, document["id"]) == (kind, identity):
                return StoredLeaf(
                    kind=known,  # type: ignore[arg-type]
                    id=identity,
                    digest="0" * 64,
                    leaf_index=index,
                    transaction=index + 1,
                    time="2026-01-01T00:00:00Z",
                    envelope=json.loads(self.leaves[index]),
                    receipt=self.receipt(index),
                )
        raise NotFound(f"no {kind} {identity}")

    async def part(self, claim: str, number: int) -> bytes:
        if (claim, number) not in self.parts:
            raise NotFound("deleted")
        return self.parts[claim, number]

    def receipt(self, index: int) -> str:
        size = min(len(self.leaves), (index // self.batch + 1) * self.batch)
        hashes = tuple(proof_hashes(inclusion_nodes(index, size), self._node))
        return Proof(index, hashes, self.signed(size)).encode()

    def documents(self) -> Iterable[tuple[str, dict[str, Any]]]:
        for leaf in self.leaves:
            envelope = dsse.from_json(json.loads(leaf))
            yield KINDS[envelope.payload_type], json.loads(envelope.payload)

    def moves(self) -> Iterable[tuple[ClaimHeader, int, Sequence[Transfer]]]:
        """Of each leaf: the claim, how often its money counts, and what it moves."""
        claims: dict[str, ClaimHeader] = {}
        for kind, document in self.documents():
            if kind == "claim":
                header = claims[document["id"]] = parse(ClaimHeader, document, where="claim")
                yield header, 0 if header.phase == "pending" else -1 if header.reverses else 1, transfers(header)
            elif kind == "resolution":
                header = claims[document["claim"]]
                yield header, int(document["outcome"] == "post"), resolved(header, document["outcome"])

    def balances(self) -> Mapping[tuple[str, str], int]:
        found: Counter[tuple[str, str]] = Counter(self.forged_balances)
        for _, _, moved in self.moves():
            for account, unit, amount in moved:
                found[account, unit] += amount
        return found

    def sums(self) -> Counter[str]:
        found: Counter[str] = Counter(dict.fromkeys(MONEY, 0))
        for header, sign, _ in self.moves():
            for name in MONEY:
                found[name] += sign * int(getattr(header, name))
        return found

    def _node(self, node: Node) -> bytes:
        return subtree_root(b"".join(self.hashes()[node.number << node.height : (node.number + 1) << node.height]))


def rules(**changes: Any) -> LeafRules:
    key = public(hub_key())
    return LeafRules(**({"federation": FEDERATION, "keys": {dsse.fingerprint(key): HubKey(key)}} | changes))


def scope(**changes: Any) -> Scope:
    """What an auditor of this log is told."""
    facts: dict[str, Any] = {"url": "memory", "key": verifier(), "rules": rules(), "jobs": 1}
    return Scope(**(facts | changes))
