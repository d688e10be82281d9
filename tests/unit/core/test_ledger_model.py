"""The ledger against a model of plain bookkeeping: claims, resolutions, reversals, floors and retries in any order, in
batches of any size."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from homefed.api.errors import HomefedError
from homefed.core.ledger import MICRO_CREDIT, PENDING, Sums
from homefed.core.ledger_reading import CheckedClaim
from homefed.core.ledger_state import ChainKey, Holding, Item, PartHeld, Recorded
from homefed.core.statement import conserved, figures
from testbed.claims import POOL, Chain, SignedClaim, SignedDocument, floor, resolution
from testbed.memory_ledger import MemoryLedger, items_of, reading
from unit.core.ledger_model import Model

HOMES = ("oak", "elm")
NAMESPACES = ("ns-1", "ns-2", "ns-3")
UNITS = {"posted": MICRO_CREDIT, "pending": PENDING, "used": "reserved:ucore.s"}

one_of_them = st.integers(0, 1000)
"""Which of what was accepted so far, modulo how many there are."""


@dataclass(frozen=True)
class Priced:
    """What a claim is made of: namespace → µcredit, how much of it is cut off, and its phase."""

    costs: dict[str, int]
    shares: tuple[int, int, int]
    released: int
    pending: bool

    @property
    def cut(self) -> dict[str, int]:
        charged = sum(self.costs.values())
        held, fee, dust = (charged * share // 200 for share in self.shares)
        return {"held": held, "fee": fee, "dust": dust, "released": 0 if self.pending else self.released}

    def claim(self, chain: Chain, instead_of: SignedClaim | None) -> SignedClaim:
        cut = self.cut
        changes = {"phase": "pending" if self.pending else "posted", "released": str(cut.pop("released"))}
        return chain.make(self.costs, instead_of=instead_of, **cut, **changes)


priced = st.builds(
    Priced,
    st.dictionaries(st.sampled_from(NAMESPACES), st.integers(0, 100), min_size=1),
    st.tuples(st.integers(0, 100), st.integers(0, 20), st.integers(0, 2)),
    st.just(0) | st.integers(0, 60),
    st.booleans(),
)


class LedgerMachine(RuleBasedStateMachine):
    """What is sent is queued with the answer that the model expects, and sent as one batch by `commit`."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.ledger = Model(), MemoryLedger()
        self.chains = {home: Chain(home=home) for home in HOMES}
        self.floors: Counter[str] = Counter()
        self.claims: list[SignedClaim] = []
        self.documents: list[SignedClaim | SignedDocument] = []
        self.queue: list[tuple[list[Item], str]] = []

    def _send(self, document: SignedClaim | SignedDocument, expected: str) -> bool:
        """Whether it will be held anew, by what the model says."""
        claim = document if isinstance(document, SignedClaim) else None
        event(f"{document.kind}{' back' if claim and claim.header['reverses'] else ''}: {expected}")
        self.queue.append(
            (items_of(claim) if claim else [reading(document.kind, document.id, document.body)], expected)
        )
        if expected == "new":
            self.documents.append(document)
        if expected == "new" and claim:
            self.claims.append(self.chains[_home(claim)].advance(claim))
        return expected == "new"

    @rule(home=st.sampled_from(HOMES), one=priced)
    def claim(self, home: str, one: Priced) -> None:
        self._claim(home, one, None)

    @precondition(lambda self: self.claims)
    @rule(which=one_of_them, one=priced)
    def claim_of_the_same_window(self, which: int, one: Priced) -> None:
        before = self._newest_of_its_window(which)
        if self.model.state.get(before.id) in ("posted", "pending"):
            self._send(self.chains[_home(before)].make(one.costs, instead_of=before), "RevisionConflict")
        else:
            self._claim(_home(before), one, before)

    def _claim(self, home: str, one: Priced, before: SignedClaim | None) -> None:
        claim = one.claim(self.chains[home], before)
        self._send(claim, self.model.claim(claim.id, home, one.costs, one.cut, pending=one.pending))

    @precondition(lambda self: self.claims)
    @rule(which=one_of_them, outcome=st.sampled_from(["post", "void"]))
    def resolve(self, which: int, outcome: Any) -> None:
        claim = self.claims[which % len(self.claims)]
        document = resolution(claim.id, outcome)
        if document.id in {sent.id for sent in self.documents}:
            return
        answer = self.model.resolve(claim.id, outcome) if claim.id in self.model.state else "NotPending"
        if self._send(document, answer) and outcome == "post":
            self.chains[_home(claim)].posted(claim)

    @precondition(lambda self: self.claims)
    @rule(which=one_of_them)
    def reverse(self, which: int) -> None:
        claim = self._newest_of_its_window(which)
        chain = self.chains[_home(claim)]
        answer = self.model.reverse(claim.id, _home(claim)) if claim.id in self.model.state else "NotReversible"
        # Of what was never paid the chain's sum would be below 0, which no header can say.
        cumulative = max(0, chain.cumulative - int(claim.header["paid"]))
        self._send(chain.reversal(claim, cumulativePaid=str(cumulative)), answer)

    def _newest_of_its_window(self, which: int) -> SignedClaim:
        window = self.claims[which % len(self.claims)].header["windowEnd"]
        home = self.claims[which % len(self.claims)].header["account"]
        same = [one for one in self.claims if (one.header["windowEnd"], one.header["account"]) == (window, home)]
        return same[-1]

    @rule(
        namespace=st.sampled_from(NAMESPACES),
        amount=st.none() | st.integers(-300, 0),
        skip=st.sampled_from([0, 0, 0, 1]),
    )
    def floor(self, namespace: str, amount: int | None, skip: int) -> None:
        sequence = self.floors[namespace] + 1 + skip
        if self._send(floor(namespace, amount, sequence), "ChainBroken" if skip else "new"):
            self.floors[namespace] = sequence
            self.model.floors[namespace] = amount

    @precondition(lambda self: self.documents)
    @rule(which=one_of_them)
    def send_again(self, which: int) -> None:
        self._send(self.documents[which % len(self.documents)], "again")

    @precondition(lambda self: self.claims)
    @rule(which=one_of_them)
    def send_other_bytes_under_the_same_id(self, which: int) -> None:
        claim = self.claims[which % len(self.claims)]
        other = self.chains[_home(claim)].sign(claim.header | {"meterVersion": "other"})
        self._send(other, "ClaimConflict")

    @rule()
    def commit(self) -> None:
        queued, self.queue = self.queue, []
        answers = iter(self.ledger.submit([item for items, _ in queued for item in items]))
        for items, expected in queued:
            *parts, answer = [next(answers) for _ in items]
            assert _said(answer) == expected, (answer, expected)
            assert all(isinstance(part, PartHeld) for part in parts)
        assert [leaf.id for leaf in self.ledger.leaves] == [document.id for document in self.documents]

    @invariant()
    def the_ledger_holds_what_the_model_says(self) -> None:
        if not self.queue:
            money = {key: amount for key, amount in self.model.money.items() if amount}
            expected = {Holding(_account(name), UNITS[unit]): amount for (name, unit), amount in money.items()}
            assert {holding: amount for holding, amount in self.ledger.balances().items() if amount} == expected

    @invariant()
    def leaves_are_dense_and_every_transaction_sums_to_zero_in_every_unit(self) -> None:
        ids = [leaf.id for leaf in self.ledger.leaves]
        assert len(set(ids)) == len(ids)
        assert [leaf.leaf_index for leaf in self.ledger.leaves] == list(range(len(ids)))
        for leaf in self.ledger.leaves:
            sums: Counter[str] = Counter()
            for _, unit, amount in leaf.transfers:
                assert amount
                sums[unit] += amount
            assert not any(sums.values())

    @invariant()
    def chains_have_no_hole(self) -> None:
        previous: defaultdict[str, tuple[int, str]] = defaultdict(lambda: (0, ""))
        for leaf in self.ledger.leaves:
            if isinstance(leaf.content, CheckedClaim):
                header = leaf.content.header
                assert (header.sequence - 1, header.previous_digest) == previous[header.account]
                previous[header.account] = (header.sequence, leaf.digest)

    @invariant()
    def statements_add_up(self) -> None:
        balances, chains = self.ledger.balances(), self.ledger.chains()
        for home in HOMES:
            sums = chains[key].sums if (key := ChainKey(POOL, _account(home))) in chains else Sums()
            own = {unit: amount for (name, unit), amount in balances.items() if name == _account(home)}
            found = figures(_account(home), own, balances.get(Holding(_account(f"held {home}"), MICRO_CREDIT), 0), sums)
            assert found.charged == sums.paid + sums.held + sums.fee + sums.dust
            assert found.balance == found.due == found.paid + found.released
            assert found.held == sums.held - sums.released >= 0
        for namespace in NAMESPACES:
            own = {unit: amount for (name, unit), amount in balances.items() if name == _account(namespace)}
            found = figures(_account(namespace), own, 0, Sums())
            assert found.due == found.charged == -found.balance >= 0
            assert found.pending >= 0
            assert all(amount >= 0 for amount in found.usage.values())

    @invariant()
    def the_whole_is_conserved(self) -> None:
        by_unit: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for (account, unit), amount in self.ledger.balances().items():
            by_unit[unit][account.partition(":")[0]] += amount
        assert conserved(by_unit, sum((head.sums for head in self.ledger.chains().values()), Sums()))

    def teardown(self) -> None:
        self.commit()
        self.the_ledger_holds_what_the_model_says()


def _home(claim: SignedClaim) -> str:
    return str(claim.header["account"]).rpartition("/")[2]


def _said(answer: object) -> str:
    if isinstance(answer, HomefedError):
        return answer.reason
    assert isinstance(answer, Recorded)
    return "new" if answer.new else "again"


def _account(name: str) -> str:
    kind, _, home = name.rpartition(" ")
    if name in ("fee", "dust"):
        return f"{name}:example/{POOL}"
    return f"{kind or ('contributor' if home in HOMES else 'consumer')}:example/{home}"


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=30, stateful_step_count=25)
