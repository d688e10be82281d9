"""A witness cosigns what continues the log that it knows, and answers everything else as tlog-witness says."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from homefed.api.errors import Incident
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note, tlog_tiles, witness
from homefed.core.checkpoint import Checkpoint
from homefed.core.merkle import Frontier, leaf_hash
from homefed.core.signed_note import Algorithm, Note, verifier_key
from homefed.core.tlog_tiles import Tile
from homefed.core.witness import Head, Request

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ORIGIN = checkpoints.origin_of("example")
LOGS = {ORIGIN: [verifier_key(ORIGIN, KEY)]}
NAME = "witness.example/w1"
COSIGN = witness.signer(NAME, OTHER, 7)
LEAVES = [leaf_hash(bytes([number])) for number in range(200)]


def head(size: int, leaves: list[bytes] = LEAVES) -> Head:
    return Head(size, Frontier().extend(leaves[:size]).frontier.root())


def checkpoint(size: int, leaves: list[bytes] = LEAVES) -> Checkpoint:
    return Checkpoint(ORIGIN, size, head(size, leaves).root)


def proof(old: int, new: int) -> tuple[bytes, ...]:
    return tuple(tlog_tiles.consistency_proof(old, new, {Tile(0, 0, new): b"".join(LEAVES[:new])}))


def request(old: int, new: int, hashes: tuple[bytes, ...] | None = None, key: Ed25519PrivateKey = KEY) -> str:
    note = signed_note.parse(checkpoints.sign(checkpoint(new), key))
    return Request(old, proof(old, new) if hashes is None else hashes, note).encode()


def ask(body: str, seen: Head | None) -> witness.Answer:
    return witness.add_checkpoint(body, LOGS, {} if seen is None else {ORIGIN: seen}, COSIGN)


@settings(deadline=None)
@given(st.integers(0, 200), st.data())
def test_what_continues_is_cosigned_and_kept(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(0, new))
    answer = ask(request(old, new), head(old) if old else None)
    assert (answer.status, answer.head) == (200, head(new))
    note = Note(checkpoint(new).text(), signed_note.parse_signatures(answer.body))
    (cosignature,) = note.verify([verifier_key(NAME, OTHER, Algorithm.COSIGNATURE)])
    assert cosignature.time == 7


def test_what_does_not_is_answered_by_its_status_and_not_kept() -> None:
    altered = (leaf_hash(b"other"), *proof(5, 9)[1:])
    foreign = request(0, 9).replace(ORIGIN, "example.org/unknown")
    same_size = checkpoints.sign(Checkpoint(ORIGIN, 9, leaf_hash(b"other")), KEY)
    answers = {
        "an unknown log": (ask(foreign, None), 404),
        "a key that is not the log's": (ask(request(0, 9, key=OTHER), None), 403),
        "old above new": (ask(request(5, 9).replace("old 5", "old 10"), head(10)), 400),
        "old is not what was cosigned": (ask(request(5, 9), head(6)), 409),
        "a first checkpoint, told as a later one": (ask(request(5, 9), None), 409),
        "another root for one size": (ask(f"old 9\n\n{same_size}", head(9)), 409),
        "a wrong proof": (ask(request(5, 9, altered), head(5)), 422),
        "no proof": (ask(request(5, 9, ()), head(5)), 422),
        "a proof from nothing": (ask(request(0, 9, (leaf_hash(b"x"),)), None), 422),
        "a rewritten past": (ask(request(5, 9), Head(5, leaf_hash(b"other"))), 422),
        "no checkpoint": (ask("old 0\n\nnothing\n", None), 400),
    }
    assert {name: (answer.status, answer.head) for name, (answer, _) in answers.items()} == {
        name: (status, None) for name, (_, status) in answers.items()
    }
    for name in ("old is not what was cosigned", "another root for one size"):
        assert answers[name][0].content_type == "text/x.tlog.size"
    assert answers["old is not what was cosigned"][0].body == "6\n"
    assert answers["a first checkpoint, told as a later one"][0].body == "0\n"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "old 0",
        "old 0\n\n",
        "new 0\n\n" + request(0, 3).partition("\n\n")[2],
        request(0, 3).replace("old 0", "old 00"),
        request(0, 3).replace("old 0", "old -1"),
        request(2, 3).replace("old 2\n", "old 2\nAAAA\n"),
        request(0, 3, (leaf_hash(b""),) * 64),
        request(0, 3) + "x" * 90_000,
    ],
)
def test_a_body_that_is_no_request_is_a_bad_one(body: str) -> None:
    answer = ask(body, None)
    assert (answer.status, answer.head) == (400, None)


def test_a_home_follows_a_log_that_grows_or_stands_still() -> None:
    assert witness.follow(None, checkpoint(5), []) == head(5)
    assert witness.follow(head(5), checkpoint(5), []) == head(5)
    assert witness.follow(head(5), checkpoint(9), proof(5, 9)) == head(9)
    assert witness.follow(head(0), checkpoint(9), []) == head(9)


def test_a_home_does_not_follow_a_log_that_goes_back_or_shows_another_past() -> None:
    rewritten = [LEAVES[0], leaf_hash(b"other"), *LEAVES[2:]]
    cases = {
        "LedgerWentBack": [(head(9), checkpoint(5), ())],
        "LedgerForked": [
            (head(5), checkpoint(5, rewritten), ()),
            (head(5), checkpoint(9, rewritten), proof(5, 9)),
            (head(5), checkpoint(9), proof(4, 9)),
            (head(5), checkpoint(9), ()),
        ],
    }
    for reason, arguments in cases.items():
        for seen, new, hashes in arguments:
            with pytest.raises(Incident) as incident:
                witness.follow(seen, new, hashes)
            assert incident.value.reason == reason
