"""Report and claim come out of a bundle again, byte for byte; and whatever was touched is named."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from homefed.api import dsse, names
from homefed.api.canonical import canonical
from homefed.api.errors import Invalid, Refused
from homefed.core import evidence, recompute, windows
from homefed.core.explain import explain_line
from unit.core.settled_home import APP, JOB, T0, TERMS, Federation, Json, guest_pod, steady


def two_hours() -> Federation:
    """Two hours, measured and settled."""
    world = Federation()
    for hour in (1, 2):
        world.measure(hour)
        world.settle(hour)
    return world


def both(data: bytes) -> tuple[recompute.Result, recompute.Result]:
    bundle = evidence.read(data)
    return recompute.report(bundle), recompute.claim(bundle)


WORLD = two_hours()


@pytest.mark.parametrize("hour", [1, 2])
def test_report_and_claim_come_out_byte_for_byte(hour: int) -> None:
    report, claim = both(WORLD.bundle(hour))
    assert report.same, report
    assert claim.same, claim
    assert [one.document for one in (*report.documents, *claim.documents)] == ["report", "claim", "lines 1"]
    assert claim.given == ()


def test_a_bundle_reads_back_and_writes_the_same_bytes() -> None:
    data = WORLD.bundle(2)
    assert evidence.write_again(evidence.read(data)) == data
    found, _ = WORLD.evidence[min(WORLD.evidence)]
    assert evidence.encoded(evidence.read(WORLD.bundle(1)).evidence) == found  # type: ignore[arg-type]


def test_a_late_report_is_in_the_claim_of_a_later_window() -> None:
    world = Federation()
    world.settle(1, late=True)
    world.measure(1)
    world.measure(2)
    world.settle(2)
    report, claim = both(world.bundle(2))
    assert report.same
    assert claim.same, claim
    assert len(evidence.read(world.bundle(2)).settled.earlier) == 1  # type: ignore[union-attr]
    first_report, first = both(world.bundle(1))
    assert first_report.same
    assert first.same, "settled without the report, which came too late"


def test_late_usage_at_the_prices_of_its_own_hours_comes_out_and_is_explained() -> None:
    """Hours 1 and 2 are settled without reports; the claim of hour 3 has lines at three factors of the time of day."""
    card = TERMS["rateCard"] | {
        "timeOfDay": [
            {"from": "00:00", "factorPpm": 1_000_000},
            {"from": "01:00", "factorPpm": 500_000},
            {"from": "02:00", "factorPpm": 800_000},
        ]
    }
    world = Federation(terms=TERMS | {"rateCard": card})
    for hour in (1, 2):
        world.settle(hour, late=True)
    for hour in (1, 2, 3):
        world.measure(hour)
    made = world.settle(3)
    assert {line.factor_ppm for line in made.lines if line.basis == "used"} == {None, 500_000, 800_000}
    for hour in (1, 2, 3):
        report, claim = both(world.bundle(hour))
        assert report.same
        assert claim.same, claim
    assert all(explain_line(line, made.window).holds for line in made.lines)


def test_a_window_that_was_never_measured_has_a_claim_to_compute() -> None:
    world = Federation()
    world.settle(1, late=True)
    report, claim = both(world.bundle(1))
    assert report.documents == ()
    assert claim.same


def test_a_clock_that_is_off_comes_out_too() -> None:
    world = Federation(offset_ms=12_345)
    world.measure(1)
    world.settle(1)
    report, claim = both(world.bundle(1))
    assert report.same
    assert claim.same


def test_a_guest_that_the_hub_has_marked_as_settled_since_comes_out_too() -> None:
    """The home looks after the receipt: by then the pod that ended in hour 2 bears the mark."""
    world = Federation()
    for hour in (1, 2, 3):
        world.measure(hour)
        world.settle(hour)
        if hour == 2:
            world.guests[1]["metadata"]["annotations"] = {names.ANNOTATION_SETTLED: windows.text(T0 + 7200)}
    for hour in (1, 2, 3):
        _, claim = both(world.bundle(hour))
        assert claim.same, claim


def test_what_the_organiser_chooses_is_taken_as_it_is_and_named() -> None:
    """All that is held is released with the second claim, as when a home leaves."""
    world = Federation()
    for hour in (1, 2):
        world.measure(hour)
        world.settle(hour, release="all" if hour == 2 else "due")
    _, claim = both(world.bundle(2))
    assert claim.same, claim
    assert claim.given == ("release (all)",)
    document = json.loads(gzip.decompress(world.bundle(2)))
    envelope = dsse.from_json(document["settled"]["claim"]["envelope"])
    header = json.loads(envelope.payload)
    header["released"] = str(int(header["released"]) - 1)
    changed = dsse.Envelope(envelope.payload_type, canonical(header), envelope.keyid, envelope.signature)
    document["settled"]["claim"]["envelope"] = changed.to_json()
    refused = recompute.claim(evidence.read(packed(document)))
    assert "released" in [one.field for one in refused.documents[0].fields]


def test_what_earlier_claims_refused_is_part_of_the_place() -> None:
    """An impossible jump in the first hour closes the pod's used lines in the second one as well."""
    jumped = steady(JOB, "cpu", 0.9, 5390)
    jumped = replace(jumped, samples=[(time, str(float(value) + 40_000)) for time, value in jumped.samples])
    world = Federation(series=[jumped])
    codes = []
    for hour in (1, 2):
        world.measure(hour)
        world.settle(hour)
        report, claim = both(world.bundle(hour))
        assert report.same
        assert claim.same, claim
        settled = evidence.read(world.bundle(hour)).settled
        assert settled is not None
        codes.append({code for part in settled.claim.parts for line in part.lines for code in line.codes})
    assert all(found & {"Impossible", "OverCapacity"} for found in codes), codes


def test_before_the_hub_has_settled_there_is_a_report_only() -> None:
    world = Federation()
    world.measure(1)
    bundle = evidence.read(world.bundle(1))
    assert recompute.report(bundle).same
    with pytest.raises(Refused, match="not settled"):
        recompute.claim(bundle)


def tampered(change: Callable[[Json], None], hour: int = 2) -> Json:
    document = copy.deepcopy(json.loads(gzip.decompress(WORLD.bundle(hour))))
    change(document)
    return dict(document)


def packed(document: Json) -> bytes:
    return gzip.compress(json.dumps(document).encode())


def _series(document: Json) -> None:
    series = next(one for one in document["evidence"]["series"] if one["metric"] == "cpu")
    series["samples"] = [[time, str(float(value) + 100)] for time, value in series["samples"]]


def _life(document: Json) -> None:
    job = next(one for one in document["evidence"]["guests"] if one["uid"] == JOB)
    job["life"]["end"] += 1000


def _member(*path: str | int) -> Callable[[Json], None]:
    """Changes one member: an integer or a decimal text is one more."""

    def change(document: Json) -> None:
        value: Any = document
        for step in path[:-1]:
            value = value[step]
        old = value[path[-1]]
        value[path[-1]] = old + 1 if isinstance(old, int) else str(int(old) + 1)

    return change


REPORT: dict[str, Callable[[Json], None]] = {
    "samples": _series,
    "life": _life,
    "settings": _member("evidence", "settings", "scrape_ms"),
    "offset": _member("evidence", "settings", "offset_ms"),
    "requests": _member("evidence", "guests", 0, "requests", "cpu"),
    "readings": _member("evidence", "readings", 0, "cumulative"),
    "asked": _member("evidence", "askedAt"),
}


@pytest.mark.parametrize("name", REPORT)
def test_evidence_that_was_touched_gives_another_report_and_says_where(name: str) -> None:
    report = recompute.report(evidence.read(packed(tampered(REPORT[name]))))
    assert not report.same
    (document,) = report.documents
    assert document.at is not None
    assert "evidenceDigest" in [one.field for one in document.fields]


def test_a_sample_that_was_touched_changes_the_amounts_that_rest_on_it() -> None:
    def last(document: Json) -> None:
        series = next(one for one in document["evidence"]["series"] if JOB in one["labels"]["pod"])
        series["samples"][-1][1] = str(float(series["samples"][-1][1]) - 60)

    (document,) = recompute.report(evidence.read(packed(tampered(last)))).documents
    fields = {one.field: one for one in document.fields}
    assert any(name.startswith("lines.") and name.endswith(".amount") for name in fields), fields


def _observed(document: Json) -> None:
    (app,) = [one for one in document["settled"]["guests"] if one["spec"]["podUid"] == APP]
    app["spec"]["observed"]["runningFrom"] = "2026-01-01T00:30:00Z"


def _request(document: Json) -> None:
    (app,) = [one for one in document["settled"]["guests"] if one["spec"]["podUid"] == APP]
    app["spec"]["requests"]["cpu"] = "2"


def _price(document: Json) -> None:
    document["settled"]["terms"]["rateCard"]["prices"][1]["microCredits"] += 1


def _fee(document: Json) -> None:
    document["settled"]["terms"]["settlement"]["feePpm"] += 10_000


def _member_since(document: Json) -> None:
    document["settled"]["memberSince"] = "2025-01-01T00:00:00Z"


def _previous(document: Json) -> None:
    document["settled"]["before"]["previous"] = None


CLAIM: dict[str, tuple[Callable[[Json], None], str]] = {
    "observed": (_observed, "lines.0.accepted"),
    "request": (_request, "lines.0.accepted"),
    "price": (_price, "rateCardDigest"),
    "fee": (_fee, "fee"),
    "member since": (_member_since, "held"),
    "place": (_previous, "sequence"),
    "accepted before": (_member("settled", "before", "accounts", 0, "known", "accepted"), "lines.0.acceptedBefore"),
}


@pytest.mark.parametrize("name", CLAIM)
def test_a_hub_side_that_was_touched_gives_another_claim_and_says_where(name: str) -> None:
    change, field = CLAIM[name]
    claim = recompute.claim(evidence.read(packed(tampered(change))))
    assert not claim.same
    assert field in [one.field for document in claim.documents for one in document.fields]


@pytest.mark.parametrize("member", ["amount", "accepted", "reported", "bound"])
def test_a_line_that_the_hub_made_up_is_named(member: str) -> None:
    change = _member("settled", "claim", "parts", 0, "lines", 1, member)
    claim = recompute.claim(evidence.read(packed(tampered(change))))
    assert [one.field for document in claim.documents for one in document.fields if document.document == "lines 1"] == [
        f"lines.1.{member}"
    ]


def test_terms_that_the_hub_did_not_show_are_said_to_be_missing() -> None:
    def change(document: Json) -> None:
        document["settled"]["terms"] = {}

    with pytest.raises(Refused, match="rate card"):
        recompute.claim(evidence.read(packed(tampered(change))))


def test_a_guest_that_is_none_is_refused() -> None:
    def change(document: Json) -> None:
        del document["settled"]["guests"][0]["spec"]["observed"]

    with pytest.raises(Invalid, match=r"settled\.guests"):
        recompute.claim(evidence.read(packed(tampered(change))))


def test_a_report_that_is_not_in_the_bundle_is_said_to_be_missing() -> None:
    def change(document: Json) -> None:
        document["reports"] = []

    with pytest.raises(Refused, match="not in the bundle"):
        recompute.claim(evidence.read(packed(tampered(change))))


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b"["), gzip.compress(b"{}"), WORLD.bundle(1)[:-20]],
    ids=["empty", "not gzip", "not JSON", "no bundle", "cut"],
)
def test_what_is_no_bundle_is_refused_with_the_reason(data: bytes) -> None:
    with pytest.raises(Invalid):
        evidence.read(data)


def test_a_bundle_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(Invalid, match="more than 1000 bytes"):
        evidence.read(WORLD.bundle(1), limit=1000)


@pytest.mark.parametrize("member", ["settings", "guests"])
def test_a_member_of_another_version_of_the_meter_is_named(member: str) -> None:
    def change(document: Json) -> None:
        value = document["evidence"][member]
        (value if isinstance(value, dict) else value[0])["newer"] = 1

    with pytest.raises(Invalid, match=f"evidence.{member}"):
        recompute.report(evidence.read(packed(tampered(change))))


def test_the_order_of_series_and_guests_changes_no_digest() -> None:
    world = Federation(guests=[guest_pod(JOB, "ns-2", ended=5400), guest_pod(APP, "ns-1")])
    world.series.reverse()
    world.measure(1)
    assert world.evidence[min(world.evidence)][0] == WORLD.evidence[min(WORLD.evidence)][0]
