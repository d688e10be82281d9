"""The audit of a ledger that can be forged at will: what is sound is clean, every forgery is found and named."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse
from homefed.api.canonical import canonical
from homefed.api.errors import Forbidden, NotFound, Transient
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note
from homefed.core.audit import Report
from homefed.core.audit_leaf import HubKey, LeafRules, read_bundle
from homefed.core.checkpoint import Checkpoint
from homefed.core.replay import Discrepancy, Findings, Replay
from homefed.core.signed_note import Algorithm, verifier_key
from homefed.core.tlog_tiles import Tile, encode_bundle
from homefed.ledger_client.auditing import Auditor
from testbed.claims import Chain, SignedClaim, floor, hub_key, line, part, public, resolution
from testbed.shown_log import ORIGIN, ShownLog, ledger_key, rules, scope

WITNESS = "homefed.io/home/home-1"


def sound() -> ShownLog:
    """Two homes, ten leaves: claims, one posted later, one voided and replaced, one taken back, a floor."""
    log, oak, elm = ShownLog(), Chain("oak"), Chain("elm")
    log.add(oak.next({"ns-1": 100, "ns-2": 7}, fee=3, held=5), elm.next({"ns-1": 50}), floor("ns-2", -500))
    disputed = oak.next({"ns-2": 20}, held=2, phase="pending")
    log.add(disputed, resolution(disputed.id, "post"))
    oak.cumulative += 18
    voided = elm.next({"ns-2": 30}, phase="pending")
    log.add(voided, resolution(voided.id, "void"), elm.next({"ns-2": 29}, instead_of=voided))
    wrong = oak.next({"ns-1": 11}, fee=1)
    log.add(wrong, oak.advance(oak.reversal(wrong)), oak.next({"ns-1": 9}, released="7"))
    return log


async def audited(log: ShownLog, **told: Any) -> Report:
    return await Auditor(log, scope(**told)).run()


def replayed(leaves: list[bytes], by: LeafRules | None = None) -> list[Discrepancy]:
    """What is wrong with the leaves alone."""
    findings = Findings()
    Replay(findings).extend(read_bundle(by or rules(), 0, len(leaves), 0, encode_bundle(leaves)))
    return findings.shown


def codes(report: Report) -> set[str]:
    return {one.code for one in report.findings.shown}


def named(report: Report, code: str) -> tuple[int | None, str]:
    """Leaf and claim of the first finding of that code."""
    return next((one.leaf, one.id) for one in report.findings.shown if one.code == code)


def claim_in(log: ShownLog, leaf: int) -> str:
    return str([*log.documents()][leaf][1]["id"])


def resigned(log: ShownLog, leaf: int, key: Ed25519PrivateKey | None = None, **changes: Any) -> bytes:
    """The leaf with another content, properly signed."""
    kind, document = [*log.documents()][leaf]
    payload_type = {"claim": dsse.CLAIM_TYPE, "floor": dsse.FLOOR_TYPE, "resolution": dsse.RESOLUTION_TYPE}[kind]
    return dsse.sign(document | changes, payload_type, key or hub_key()).canonical()


async def test_a_sound_ledger_is_clean_in_every_step() -> None:
    report = await audited(sound())
    assert report.findings.shown == []
    assert report.verdict == "clean"
    assert [step.name for step in report.steps] == ["checkpoint", "leaves", "balances", "tree", "history", "receipts"]
    assert report.kinds == {"claim": 8, "resolution": 2, "floor": 1}


async def test_an_empty_ledger_is_clean() -> None:
    assert (await audited(ShownLog())).verdict == "clean"


async def test_a_ledger_of_several_bundles_is_clean() -> None:
    log, oak = ShownLog(batch=100), Chain("oak")
    log.add(*(oak.next({"ns-1": 1}) for _ in range(520)))
    report = await audited(log, receipts=20, last=log.signed(300))
    assert report.findings.shown == []
    assert report.verdict == "clean"


async def test_bundles_are_read_by_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homefed.ledger_client.replaying.ALONE", 0)
    log = sound()
    log.leaves[5] = resigned(log, 5, meterVersion="changed")
    found = await audited(log, jobs=2)
    assert codes(found) == codes(await audited(log, jobs=1))
    assert found.findings.shown


async def test_a_changed_leaf_is_named_by_its_signature_and_breaks_the_signed_root() -> None:
    log, signed = sound(), sound().signed()
    envelope = json.loads(log.leaves[1])
    payload = json.loads(base64.b64decode(envelope["payload"]))
    payload["paid"] = "49"
    envelope["payload"] = base64.b64encode(canonical(payload)).decode()
    log.leaves[1] = canonical(envelope)
    report = await audited(showing(log, checkpoint=signed))
    assert named(report, "BadSignature") == (1, claim_in(log, 1))
    assert "RootDiffers" in codes(report)


async def test_a_leaf_that_the_hub_signed_anew_after_the_fact_is_found_by_root_and_chain() -> None:
    log, signed = sound(), sound().signed()
    log.leaves[0] = resigned(log, 0, meterVersion="changed")
    report = await audited(showing(log, checkpoint=signed))
    assert "RootDiffers" in codes(report)
    assert named(report, "ChainBroken") == (3, claim_in(log, 3))


async def test_a_leaf_that_is_missing_and_signed_over_is_named_by_the_claim_after_it() -> None:
    log = sound()
    after = claim_in(log, 3)
    del log.leaves[0]
    report = await audited(log)
    assert named(report, "ChainBroken") == (2, after)
    assert "sequence 2" in report.findings.shown[0].message


async def test_leaves_that_are_not_served_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    log = sound()

    async def short(number: int, width: int) -> bytes:
        return (await ShownLog.bundle(log, number, width))[: -2 - len(log.leaves[-1])]

    monkeypatch.setattr(log, "bundle", short)
    report = await audited(log)
    assert "LeavesMissing" in codes(report)
    assert "10 leaves are served instead of 11" in report.findings.shown[0].message
    assert report.verdict == "findings"


async def test_a_changed_balance_names_account_unit_and_both_amounts() -> None:
    log = sound()
    log.forged_balances["contributor:example/oak", "ucredit"] = 5
    report = await audited(log)
    (message,) = [one.message for one in report.findings.shown if one.code == "BalanceDiffers"]
    assert "contributor:example/oak has 133 ucredit by the leaves, 138 by the ledger" in message
    assert "TotalsDiffer" in codes(report)


async def test_a_history_that_was_forked_since_the_last_audit_is_found() -> None:
    log, last = sound(), sound().signed(7)
    log.leaves[6] = resigned(log, 6, outcome="post")
    report = await audited(log, last=last)
    assert "LedgerForked" in codes(report)
    assert "7 leaves" in next(one.message for one in report.findings.shown if one.code == "LedgerForked")


async def test_a_ledger_that_went_back_is_found() -> None:
    log, last = sound(), sound().signed()
    del log.leaves[7:]
    assert codes(await audited(log, last=last)) == {"LedgerWentBack"}


async def test_a_ledger_that_grew_since_the_last_audit_is_clean() -> None:
    log = sound()
    for size in range(len(log.leaves) + 1):
        assert (await audited(log, last=log.signed(size))).verdict == "clean", size


async def test_a_checkpoint_under_another_key_is_found_and_nothing_else_believed() -> None:
    log = sound()
    log.key = ledger_key(2)
    report = await audited(log)
    assert codes(report) == {"Unsigned"}
    assert [step.name for step in report.steps] == ["checkpoint"]


async def test_receipts_of_another_history_are_named() -> None:
    log, other = sound(), sound()
    other.leaves[0] = resigned(other, 0, meterVersion="changed")
    report = await audited(showing(log, leaf=other.leaf))
    assert named(report, "WrongAnswer") == (0, claim_in(log, 0))
    assert {leaf for code, _, leaf, _ in report.findings.shown if code == "WrongProof"} <= set(range(11))


async def test_a_receipt_under_a_tree_that_was_never_continued_is_named() -> None:
    log, other = sound(), sound()
    other.batch = 2
    other.leaves[1] = resigned(other, 1, meterVersion="changed")

    async def leaf(kind: str, identity: str) -> Any:
        answer = await log.leaf(kind, identity)
        return answer.model_copy(update={"receipt": other.receipt(0)}) if answer.leaf_index == 0 else answer

    report = await audited(showing(log, leaf=leaf))
    assert named(report, "LedgerForked") == (0, claim_in(log, 0))


async def test_a_claim_that_the_ledger_denies_is_named() -> None:
    log = sound()

    async def leaf(kind: str, identity: str) -> Any:
        raise NotFound("no such claim")

    report = await audited(showing(log, leaf=leaf), receipts=1)
    assert named(report, "NotFound") == (10, claim_in(log, 10))


async def test_a_tile_that_differs_from_the_leaves_is_named() -> None:
    log = sound()

    async def tile(wanted: Tile) -> bytes:
        data = await log.tile(wanted)
        return data[:64] + bytes(32) + data[96:]

    report = await audited(showing(log, tile=tile))
    assert named(report, "TileDiffers")[0] == 2


@pytest.mark.parametrize(
    ("leaf", "changes", "code"),
    [
        (1, {"paid": "51"}, "NotConserved"),
        (1, {"id": "0" * 64}, "WrongId"),
        (1, {"federation": "other"}, "WrongFederation"),
        (1, {"cumulativePaid": "51"}, "ChainBroken"),
        (1, {"sequence": 2}, "ChainBroken"),
        (1, {"previousDigest": "0" * 64}, "ChainBroken"),
        (1, {"unknown": 1}, "InvalidField"),
        (2, {"floor": "1"}, "InvalidField"),
        (2, {"sequence": 2, "id": floor("ns-2", -500, 2).id}, "ChainBroken"),
        (4, {"outcome": "drop"}, "InvalidField"),
        (10, {"released": "8"}, "NotHeld"),
        (10, {"heldBack": [{"due": "2026-11-01T00:00:00Z", "amount": "999"}]}, "HeldBackDiffers"),
    ],
)
def test_what_no_ledger_may_accept_is_named(leaf: int, changes: dict[str, Any], code: str) -> None:
    leaves = [*sound().leaves]
    leaves[leaf] = resigned(sound(), leaf, **changes)
    assert leaf in {one.leaf for one in replayed(leaves) if one.code == code}


def test_a_claim_that_takes_a_consumer_below_its_floor_is_named() -> None:
    leaves = [*sound().leaves]
    leaves[2] = resigned(sound(), 2, floor="-26")
    assert [(one.code, one.leaf) for one in replayed(leaves)] == [("BelowFloor", leaf) for leaf in (3, 5, 7)]


async def test_a_hub_key_that_nobody_registered_is_named() -> None:
    log = sound()
    log.leaves[2] = resigned(log, 2, key=hub_key(9))
    assert named(await audited(log), "UnknownKey") == (2, floor("ns-2", -500).id)


def test_a_revoked_key_is_good_for_the_leaves_before() -> None:
    key = public(hub_key())
    revoked = rules(keys={dsse.fingerprint(key): HubKey(key, until=10)})
    assert [(one.code, one.leaf) for one in replayed(sound().leaves, revoked)] == [("KeyRevoked", 10)]


async def test_one_document_twice_is_named() -> None:
    log = sound()
    log.leaves.append(log.leaves[2])
    assert named(await audited(log), "IdTwice") == (11, floor("ns-2", -500).id)


async def test_a_claim_of_a_window_that_counts_already_is_named() -> None:
    log, oak = ShownLog(), Chain("oak")
    first = oak.next({"ns-1": 5})
    log.add(first, oak.next({"ns-1": 6}, instead_of=first))
    report = await audited(log)
    assert named(report, "RevisionConflict") == (1, claim_in(log, 1))


async def test_a_claim_that_is_taken_back_twice_or_with_other_amounts_is_named() -> None:
    log, oak = ShownLog(), Chain("oak")
    first = oak.next({"ns-1": 5})
    back = oak.advance(oak.reversal(first, rateCardDigest="1" * 64))
    log.add(first, back, oak.advance(oak.reversal(back, cumulativePaid="0")))
    report = await audited(log)
    assert named(report, "ReversalDiffers") == (1, back.id)
    assert named(report, "NotReversible")[0] == 2


def test_a_resolution_of_what_is_not_pending_is_named() -> None:
    first = Chain("oak").next({"ns-1": 5})
    leaves = [first.body, resolution(first.id, "void").body, resolution("0" * 64, "post").body]
    assert [(one.code, one.leaf) for one in replayed(leaves)] == [("NotPending", 1), ("NotPending", 2)]


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff", b'{"payload":"","payloadType":"x","signatures":[]}'])
def test_a_leaf_that_is_no_document_is_one_finding(junk: bytes) -> None:
    assert [one.leaf for one in replayed([*sound().leaves, junk])] == [11]


async def test_a_ledger_that_grows_meanwhile_is_followed() -> None:
    log, oak = sound(), Chain("ash")
    growths = iter(range(3))

    def grow() -> None:
        if next(growths, None) is not None:
            log.add(oak.next({"ns-1": 1}))

    log.grow = grow
    report = await audited(log)
    assert report.findings.shown == []
    assert report.verdict == "clean"
    assert report.kinds["claim"] == 11


async def test_a_tree_that_was_signed_a_moment_ago_and_is_not_continued_is_found() -> None:
    log, other, oak = sound(), sound(), Chain("ash")
    other.leaves[0] = resigned(other, 0, meterVersion="changed")
    shown = iter([other.signed()])

    async def checkpoint() -> str:
        return next(shown, None) or log.signed()

    growths = iter([oak.next({"ns-1": 1})])
    log.grow = lambda: log.add(*growths)
    assert "LedgerForked" in codes(await audited(showing(log, checkpoint=checkpoint)))


async def test_a_size_that_no_ledger_can_have_ends_at_the_first_leaf_that_is_missing() -> None:
    log = sound()
    huge = checkpoints.sign(Checkpoint(ORIGIN, 2**60, bytes(32)), log.key)
    report = await audited(showing(log, checkpoint=huge))
    assert "LeavesMissing" in codes(report)
    assert log.asked["bundle"] < 64


async def test_a_ledger_that_never_rests_is_not_called_clean() -> None:
    log, oak = sound(), Chain("ash")
    log.grow = lambda: log.add(oak.next({"ns-1": 1}))
    report = await audited(log)
    assert report.verdict == "unchecked"
    assert {step.name for step in report.steps if step.outcome == "unchecked"} == {"balances"}


async def test_a_ledger_that_cannot_be_reached_is_not_called_clean() -> None:
    async def checkpoint() -> str:
        raise Transient("connection refused")

    report = await audited(showing(sound(), checkpoint=checkpoint))
    assert report.verdict == "unchecked"


@pytest.mark.parametrize("method", ["totals", "accounts", "leaf"])
async def test_what_is_refused_later_is_unchecked_and_the_other_steps_go_on(method: str) -> None:
    async def refuse(*_: object) -> Any:
        raise Forbidden("not you")

    report = await audited(showing(sound(), **{method: refuse}))
    assert report.verdict == "unchecked"
    assert {step.name for step in report.steps} >= {"balances", "tree", "history", "receipts"}


def cosigned(text: str, seed: int = 7) -> str:
    """The signed checkpoint with the cosignature of WITNESS below."""
    note = signed_note.parse(text)
    cosignature = signed_note.cosign(note.text, WITNESS, hub_key(seed), 1)
    return signed_note.Note(note.text, (*note.signatures, cosignature)).encode()


def cosigning(log: ShownLog, text: str) -> Any:
    async def newest() -> str:
        return text

    return showing(log, cosigned=newest)


WITNESSES = {"witnesses": (verifier_key(WITNESS, hub_key(7), Algorithm.COSIGNATURE),), "quorum": 1}


@pytest.mark.parametrize("size", [1, 6, 11])
async def test_a_checkpoint_that_the_witness_has_cosigned_need_not_be_the_newest(size: int) -> None:
    log = sound()
    report = await audited(cosigning(log, cosigned(log.signed(size))), **WITNESSES)
    assert report.verdict == "clean"
    assert f"1 of 1 have cosigned the first {size} leaves" in [step.detail for step in report.steps]


async def test_without_enough_cosignatures_the_witnesses_are_unchecked() -> None:
    log = sound()
    report = await audited(cosigning(log, log.signed(6)), **WITNESSES)
    assert (report.verdict, codes(report)) == ("unchecked", set())
    assert (await audited(log, **WITNESSES)).verdict == "unchecked"


async def test_a_witness_that_saw_another_history_is_a_finding() -> None:
    log, other = sound(), sound()
    other.leaves[0] = resigned(other, 0, meterVersion="changed")
    assert codes(await audited(cosigning(log, cosigned(other.signed(6))), **WITNESSES)) == {"LedgerForked"}


async def test_a_wrong_cosignature_under_the_witnesss_name_is_a_finding() -> None:
    log = sound()
    wrong = signed_note.parse(cosigned(log.signed()))
    own, forged = wrong.signatures
    bad = signed_note.Note(wrong.text, (own, replace(forged, signature=forged.signature[:-1] + b"\0"))).encode()
    assert codes(await audited(cosigning(log, bad), **WITNESSES)) == {"BadSignature"}


def metered(claim: SignedClaim, *lines: dict[str, Any]) -> SignedClaim:
    """The claim with these lines, which must come to what its own do."""
    body = part(claim.id, 1, lines)
    header = claim.header | {"parts": [hashlib.sha256(body).hexdigest()], "lineCount": len(lines)}
    return SignedClaim(header, (body,), dsse.sign(header, dsse.CLAIM_TYPE, hub_key()))


UNITS = 3600 * 10**6


def reading(opened: int, closed: int) -> dict[str, Any]:
    return {"open": str(opened), "close": str(closed), "samples": 4, "expected": 4, "gaps": 0, "resets": 0}


def read(before: int, opened: int, closed: int) -> dict[str, Any]:
    """A used line of 5 µcredit."""
    return line("ns-1", 5, acceptedBefore=str(before * UNITS), reading=reading(opened, closed) | {"estimated": "0"})


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (read(5, 7, 12), None),
        (read(5, 8, 12), "ReadingGap"),
        (read(5, 7, 6), "ReadingFalls"),
        (read(4, 7, 12), "AcceptedTwice"),
    ],
)
async def test_readings_join_up_from_claim_to_claim(second: dict[str, Any], code: str | None) -> None:
    log, oak = ShownLog(), Chain("oak")
    log.add(oak.advance(metered(oak.make({"ns-1": 5}), read(0, 0, 7))))
    log.add(oak.advance(metered(oak.make({"ns-1": 5}), second)))
    report = await audited(log, lines=True)
    assert [(one.code, one.leaf, one.id) for one in report.findings.shown] == (
        [] if code is None else [(code, 1, claim_in(log, 1))]
    )


async def test_a_removed_lines_part_is_named() -> None:
    log = sound()
    claim = claim_in(log, 1)
    del log.parts[claim, 1]
    assert named(await audited(log, lines=True), "PartMissing") == (1, claim)


async def test_lines_that_retention_has_taken_are_no_finding_and_readings_go_on_behind_them() -> None:
    log, oak = ShownLog(), Chain("oak")
    log.add(oak.advance(metered(oak.make({"ns-1": 5}), read(0, 0, 7))))
    log.add(oak.advance(metered(oak.make({"ns-1": 5}), read(5, 7, 12))))
    del log.parts[claim_in(log, 0), 1]
    report = await audited(log, lines=True, lines_since="2026-01-01T01:30:00Z")
    assert report.verdict == "clean"


async def test_a_removed_or_changed_line_is_named_by_the_parts_digest() -> None:
    log = sound()
    claim = claim_in(log, 0)
    document = json.loads(log.parts[claim, 1])
    log.parts[claim, 1] = canonical(document | {"lines": document["lines"][:1]})
    assert named(await audited(log, lines=True), "PartDiffers") == (0, claim)


async def test_lines_that_may_not_be_read_are_unchecked() -> None:
    async def refuse(*_: object) -> Any:
        raise Forbidden("submitters only")

    report = await audited(showing(sound(), part=refuse), lines=True)
    assert report.verdict == "unchecked"
    assert report.steps[-1].name == "lines"


def showing(log: ShownLog, **forged: Any) -> Any:
    """The log with other answers; text stands for a method that returns it."""

    class Forged:
        def __getattr__(self, name: str) -> Any:
            return forged[name] if name in forged else getattr(log, name)

    if isinstance(text := forged.get("checkpoint"), str):

        async def checkpoint() -> str:
            return text

        forged["checkpoint"] = checkpoint
    return Forged()
