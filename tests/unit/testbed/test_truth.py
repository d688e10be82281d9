"""What the demo and the tests of real nodes judge by: truth between two lines of a log, claims against a ledger."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from testbed.demo_verdict import Row
from testbed.errors import TestbedError
from testbed.settled import Claim, imbalances, metered, reserved
from testbed.truth import told_at, whole_lines

LINES = [
    {"wall": 110.0, "elapsed": 10.0, "cpu_seconds": 2.0, "mib": 8},
    {"wall": 120.0, "elapsed": 20.0, "cpu_seconds": 6.0, "mib": 8},
]
POD = "11111111-2222-3333-4444-555555555555"


def test_truth_lies_on_the_line_between_the_two_moments_around_it() -> None:
    assert told_at(LINES, "cpu_seconds", 115.0) == pytest.approx(4.0)
    assert told_at(LINES, "cpu_seconds", 120.0) == pytest.approx(6.0)


def test_before_its_first_line_a_workload_has_used_what_it_told_then_by_and_by() -> None:
    assert told_at(LINES, "cpu_seconds", 105.0) == pytest.approx(1.0)
    assert told_at(LINES, "mib", 105.0) == pytest.approx(8)


def test_a_container_that_is_sampled_before_its_program_starts_has_used_nothing() -> None:
    assert told_at(LINES, "cpu_seconds", 99.0) == 0


def test_about_a_moment_after_its_last_line_nothing_is_told() -> None:
    with pytest.raises(TestbedError, match="nothing was told"):
        told_at(LINES, "cpu_seconds", 121.0)


def used(accepted: int, before: int, close: int) -> dict[str, Any]:
    return {
        "guestPod": POD,
        "resource": "cpu",
        "basis": "used",
        "accepted": str(accepted),
        "acceptedBefore": str(before),
        "reading": {"close": str(close)},
        "codes": [],
    }


def claim(window_end: str, *, charged: int, paid: int, fee: int = 0, dust: int = 0, lines: Any = ()) -> Claim:
    header = {"charged": charged, "paid": paid, "held": 0, "fee": fee, "dust": dust}
    payload = base64.b64encode(json.dumps(header).encode()).decode()
    document = {"payloadType": "x", "payload": payload, "signatures": [{"keyid": "k", "sig": "c2ln"}]}
    envelope = base64.b64encode(json.dumps(document).encode()).decode()
    return Claim("oak", {"spec": {"claimId": "c" * 64, "windowEnd": window_end, "envelope": envelope}}, list(lines))


def totals(*, charged: int, paid: int, fee: int = 0, dust: int = 0) -> dict[str, Any]:
    accounts = {"consumer": -charged, "contributor": paid, "held": 0, "fee": fee, "dust": dust}
    return {"charged": str(charged), "accounts": {key: str(value) for key, value in accounts.items()}} | {
        "conserved": True,
        "claims": 1,
    }


def test_books_that_balance_have_nothing_wrong() -> None:
    claims = [claim("2026-01-01T00:01:00Z", charged=100, paid=97, fee=2, dust=1)]
    assert imbalances(claims, totals(charged=100, paid=97, fee=2, dust=1)) == []


def test_a_claim_that_shares_out_more_than_it_charges_is_found() -> None:
    claims = [claim("2026-01-01T00:01:00Z", charged=100, paid=99, fee=2)]
    assert any(problem.startswith("claim ") for problem in imbalances(claims, totals(charged=100, paid=99, fee=2)))


def test_a_ledger_that_says_something_else_than_the_claims_is_found() -> None:
    claims = [claim("2026-01-01T00:01:00Z", charged=100, paid=98, fee=2)]
    assert "ledger: fee accounts hold 1, the claims say 2" in imbalances(claims, totals(charged=100, paid=98, fee=1))
    assert "ledger: charged 99, the claims say 100" in imbalances(claims, totals(charged=99, paid=98, fee=2))


def test_a_ledger_that_is_not_conserved_by_its_own_word_is_found() -> None:
    said = totals(charged=100, paid=100) | {"conserved": False}
    assert imbalances([claim("2026-01-01T00:01:00Z", charged=100, paid=100)], said) != []


def report(window_end: str, time: int, *, ended: bool = False, estimated: int = 0) -> dict[str, Any]:
    line = {"guestPod": POD, "resource": "cpu", "estimated": str(estimated)}
    reading = {"guestPod": POD, "resource": "cpu", "time": time, "ended": ended}
    return {"windowEnd": window_end, "lines": [line], "readings": [reading]}


def test_metered_is_the_newest_claims_line_at_the_reading_that_it_rests_on() -> None:
    first, second, third = (f"2026-01-01T00:0{minute}:00Z" for minute in (1, 2, 3))
    claims = [
        claim(first, charged=0, paid=0, lines=[used(5, 0, 5)]),
        claim(second, charged=0, paid=0, lines=[used(4, 5, 9)]),
    ]
    reports = [report(first, 1000), report(second, 2000, ended=True, estimated=2), report(third, 3000)]
    found = metered(claims, reports)[POD, "cpu"]
    assert (found.reported, found.accepted, found.estimated, found.at_ms, found.ended) == (9, 9, 2, 2000, True)


def test_reserved_is_cumulative_over_the_claims() -> None:
    lines = [used(5, 0, 5) | {"basis": "reserved"}], [used(4, 5, 9) | {"basis": "reserved"}]
    ends = "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"
    claims = [claim(end, charged=0, paid=0, lines=own) for end, own in zip(ends, lines, strict=True)]
    assert reserved(claims) == {(POD, "cpu"): 9}


def test_a_row_holds_within_its_tolerance_and_where_all_of_it_was_paid() -> None:
    row = Row("oak", "hello", "cpu", "core·s", truth=10, metered=10.05, paid_for=10.05, least=9.9, most=10.1)
    assert row.holds
    assert row.error_percent == pytest.approx(0.5)
    assert not replace(row, metered=10.2, paid_for=10.2).holds
    assert not replace(row, paid_for=8).holds


def test_a_log_that_is_being_written_is_read_up_to_its_last_whole_line() -> None:
    text = "kubectl says something\n" + json.dumps(LINES[0]) + '\n{"wall": 1'
    assert whole_lines(text) == [LINES[0]]
