"""Pay-stubs: rows that add up, periods, and cells that no spreadsheet takes for a formula."""

import csv
import io
from typing import Any

import pytest

from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.meta import parse
from homefed.core.pay_stub import COLUMNS, StubClaim, pay_stub, within
from testbed.claims import Chain, line


def claim(
    chain: Chain, *costs: int, state: str = "posted", lines: list[dict[str, Any]] | None = None, **split: Any
) -> StubClaim:
    signed = chain.next({f"ns-{number}": cost for number, cost in enumerate(costs)}, **split)
    header = parse(ClaimHeader, signed.header, where="claim")
    return StubClaim(3, header, state, None if lines is None else [parse(Line, one, where="line") for one in lines])


def rows(*claims: StubClaim) -> list[dict[str, str]]:
    text = "".join(pay_stub(claims))
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_every_row_has_every_column() -> None:
    lines = list(csv.reader(pay_stub([claim(Chain(), 5, lines=[line("ns-0", 5)]), claim(Chain(), 5)])))
    assert {len(cells) for cells in lines} == {len(COLUMNS)}


def test_a_claim_shows_where_its_money_went() -> None:
    shown = next(row for row in rows(claim(Chain(), 100, fee=10, held=20, dust=1)) if row["record"] == "claim")
    assert shown["chargedMicroCredits"] == "100"
    assert [shown[f"{name}MicroCredits"] for name in ("fee", "held", "paid", "dust")] == ["10", "20", "69", "1"]
    assert (shown["windowStart"], shown["windowEnd"]) == ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")


def test_lines_of_one_rate_are_one_row_and_name_no_consumer() -> None:
    found = rows(claim(Chain(), 5, 7, lines=[line("ns-0", 5), line("ns-1", 7)]))
    delivered = [row for row in found if row["record"] == "line"]
    assert [row["amountMicroCredits"] for row in delivered] == ["12"]
    assert (delivered[0]["rateMicroCredits"], delivered[0]["ratePer"]) == ("1", "core-hour")
    assert not any("ns-" in cell for row in found for cell in row.values())


def test_lines_of_another_class_price_or_time_of_day_are_rows_of_their_own() -> None:
    usual = line("ns-0", 5)
    cheaper = usual | {"rate": usual["rate"] | {"class": "fast", "pricePpm": 500_000}, "factorPpm": 600_000}
    found = rows(claim(Chain(), 5, lines=[usual, cheaper]))
    delivered = [row for row in found if row["record"] == "line"]
    assert [(row["class"], row["pricePpm"], row["factorPpm"]) for row in delivered] == [
        ("fast", "500000", "600000"),
        ("standard", "1000000", "1000000"),
    ]


def test_without_lines_the_headers_usage_is_shown() -> None:
    found = [row for row in rows(claim(Chain(), 5, 7)) if row["record"] == "usage"]
    assert [(row["basis"], row["unit"], row["accepted"]) for row in found] == [
        ("reserved", "ucore.s", str(12 * 3600 * 10**6))
    ]


@pytest.mark.parametrize(
    ("state", "paid"), [("posted", "12"), ("reversed", "12"), ("reversal", "2"), ("pending", "7"), ("void", "7")]
)
def test_totals_are_of_what_is_posted_and_not_taken_back(state: str, paid: str) -> None:
    assert rows(claim(Chain(), 7), claim(Chain(), 5, state=state))[-1]["paidMicroCredits"] == paid


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1+1", "@x", "\t=1", "\r=1", "\n=1", " =1"])
def test_a_resource_that_a_spreadsheet_would_compute_is_disarmed(name: str) -> None:
    found = rows(claim(Chain(), 5, lines=[line("ns-0", 5, resource=name)]))
    assert next(row for row in found if row["record"] == "line")["resource"] == "'" + name


@pytest.mark.parametrize(
    ("since", "until", "inside"),
    [
        ("", "", True),
        ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", True),
        ("2026-01-01T01:00:00+01:00", "", True),
        ("2026-01-01T00:00:01Z", "", False),
        ("", "2026-01-01T00:59:59Z", False),
    ],
)
def test_a_period_has_the_windows_that_lie_in_it(since: str, until: str, inside: bool) -> None:
    assert within(claim(Chain(), 5).header, since, until) is inside
