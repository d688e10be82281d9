"""The home cosigns what continues what it cosigned before, and nothing else, whenever it is killed."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from doubles import Json, Server

from homefed.agent.witness import ALARMS, CONFLICT, FORKED, KEY, SEEN, Member, Witness
from homefed.api.errors import Conflict, Forbidden, HomefedError, Transient
from homefed.core import signed_note, witness
from homefed.core.findings import Finding
from homefed.core.signed_note import VerifierKey
from homefed.kube.resources import SECRETS
from homefed.ledger_client import LedgerClient
from testbed.claims import FEDERATION
from testbed.model_log import ModelLog, log_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOME_KEY = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
MEMBER = Member(FEDERATION, "home-uid")


class Ledger(LedgerClient):
    """A client whose ledger is in memory."""

    def __init__(self, log: ModelLog) -> None:
        self.log = log
        self.taken: list[str] = []
        self.trouble: HomefedError | None = None

    async def ledger_key(self) -> VerifierKey:
        return self.log.vkey

    async def fetch(self, path: str) -> bytes:
        return await self.log.fetch(path)

    async def post_cosignature(self, note: str) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.taken.append(note)


class World:
    def __init__(self) -> None:
        self.home, self.ledger = Server(), Ledger(ModelLog([b"a", b"b", b"c"]))
        self.home.put(SECRETS, {"metadata": {"name": "homefed-agent", "namespace": "homefed"}})
        self.member: Member | None = MEMBER

    def started(self) -> Witness:
        """An agent that has just been started."""
        return Witness(
            self.home, "homefed", "homefed-agent", self.ledger, member=lambda: self.member, private=lambda: HOME_KEY
        )

    async def look(self, own: Witness | None = None) -> Finding:
        return await (own or self.started()).run_pass(NOW)

    @property
    def data(self) -> dict[str, str]:
        secret: Json = self.home.objects["secrets", "homefed", "homefed-agent"]
        return {name: base64.b64decode(value).decode() for name, value in (secret.get("data") or {}).items()}

    def sizes(self) -> list[int]:
        """Of the checkpoints that were cosigned, each verified."""
        key = witness.home_key(MEMBER.home_uid, HOME_KEY.public_key().public_bytes_raw())
        notes = [signed_note.parse(text) for text in self.ledger.taken]
        assert all(note.verify([key])[0].time == int(NOW.timestamp()) for note in notes)
        return [int(note.text.split("\n")[1]) for note in notes]


def gauge() -> float:
    (metric,) = FORKED.collect()
    return metric.samples[0].value


@pytest.fixture
def world() -> World:
    return World()


async def test_checkpoints_that_continue_each_other_are_cosigned_in_turn(world: World) -> None:
    own = world.started()
    for size in (3, 4, 90):
        world.ledger.log.leaves = world.ledger.log.leaves[:3] + [b"%d" % n for n in range(size - 3)]
        assert (await world.look(own)).reason == "Cosigned"
    assert world.sizes() == [3, 4, 90]
    assert world.data[SEEN] == world.ledger.log.signed()


async def test_while_nothing_is_new_nothing_is_written_or_sent(world: World) -> None:
    own = world.started()
    await world.look(own)
    writes = list(world.home.writes)
    for _ in range(5):
        await world.look(own)
    assert world.home.writes == writes
    assert world.sizes() == [3]


async def test_an_agent_that_is_started_anew_hands_in_once_more_and_writes_nothing(world: World) -> None:
    await world.look()
    writes = list(world.home.writes)
    assert (await world.look()).reason == "Cosigned"
    assert (world.sizes(), world.home.writes) == ([3, 3], writes)


async def test_a_checkpoint_is_durable_before_its_cosignature_leaves_the_home(world: World) -> None:
    world.home.trouble["patch"] = Transient("killed")
    assert (await world.look()).status == "False"
    assert world.ledger.taken == []
    world.home.trouble.clear()
    world.ledger.trouble = Transient("killed between the two")
    assert (await world.look()).reason == "LedgerUnreachable"
    assert world.data[SEEN] == world.ledger.log.signed()
    world.ledger.trouble = None
    world.ledger.log.leaves[2] = b"another history"
    assert (await world.look()).reason == "LedgerForked"
    assert world.ledger.taken == []


@pytest.mark.parametrize(("change", "reason"), [("back", "LedgerWentBack"), ("fork", "LedgerForked")])
async def test_what_contradicts_the_last_cosigned_is_never_cosigned_and_kept_as_evidence(
    world: World, change: str, reason: str
) -> None:
    await world.look()
    seen = world.data[SEEN]
    log = world.ledger.log
    log.leaves = log.leaves[:2] if change == "back" else [b"a", b"x", b"y", b"z"]
    for own in (world.started(), world.started()):
        found = await world.look(own)
        assert (found.status, found.reason, reason in ALARMS) == ("False", reason, True)
    assert world.sizes() == [3]
    assert (world.data[SEEN], world.data[CONFLICT]) == (seen, log.signed())
    assert gauge() == 1
    log.leaves = [b"a", b"b", b"c", b"d"]
    assert (await world.look(own)).reason == "Cosigned"
    assert gauge() == 0


async def test_the_ledgers_key_is_pinned_at_first_use(world: World) -> None:
    await world.look()
    assert world.data[KEY] == world.ledger.log.vkey.text()
    world.ledger.log.key = log_key(2)
    found = await world.look()
    assert (found.status, found.reason) == ("False", "LedgerKeyChanged")
    assert world.sizes() == [3]


async def test_a_log_of_another_federation_is_not_cosigned(world: World) -> None:
    world.member = Member("elsewhere", "home-uid")
    assert (await world.look()).reason == "WrongLedger"
    assert (world.ledger.taken, world.data) == ([], {})


async def test_an_empty_ledger_is_nothing_to_cosign(world: World) -> None:
    world.ledger.log.leaves = []
    assert (await world.look()).reason == "Cosigned"
    assert (world.ledger.taken, SEEN in world.data) == ([], False)


async def test_before_the_hub_has_answered_nothing_is_done(world: World) -> None:
    world.member = None
    assert (await world.look()).status == "Unknown"
    assert world.ledger.log.fetched == []


async def test_a_ledger_that_does_not_know_the_home_yet_is_asked_again(world: World) -> None:
    own = world.started()
    world.ledger.trouble = Forbidden("no", reason="UnknownWitness")
    found = await world.look(own)
    assert (found.status, found.reason) == ("False", "UnknownWitness")
    world.ledger.trouble = None
    assert (await world.look(own)).reason == "Cosigned"
    assert world.sizes() == [3]


async def test_of_two_agents_at_once_the_second_does_not_write_over_what_the_first_has_kept(world: World) -> None:
    world.home.trouble["patch"] = Conflict("the Secret has changed")
    assert (await world.look()).status == "False"
    assert world.ledger.taken == []
