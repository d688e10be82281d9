"""What a home cannot have used is not accepted, also not later; what an honest meter says always is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.claim_document import Line
from homefed.api.rate_card import Price
from homefed.api.report_document import UNITS, ReportLine
from homefed.core.report_gates import Step, fault
from homefed.core.rewards import Account, Observation, summarise, used_line
from homefed.core.windows import Window

T0 = 1_767_225_600
UID = "11111111-2222-3333-4444-555555555555"
GUEST = Observation(UID, "ns-1", {"cpu": 1000, "memory": 2**30}, T0 * 1000, T0 * 1000, None)
CPU = Price(resource="cpu", basis="used", micro_credits=2_000_000, per="core-hour")
CORE_HOUR = 3600 * 10**6


def hour(number: int) -> Window:
    return Window(T0 + 3600 * (number - 1), T0 + 3600 * number)


def step(
    number: int, opened: int, closed: int, *, resource: str = "cpu", gaps: int = 0, samples: int = 240, hold: int = 30
) -> Step:
    """One report's line about the hour that ends `number` hours after T0."""
    line = ReportLine(
        guest_pod=UID,
        resource=resource,  # type: ignore[arg-type]
        unit=UNITS[resource],  # type: ignore[index]
        open=str(opened),
        close=str(closed),
        amount=str(closed - opened),
        samples=samples,
        expected=240,
        gaps=gaps,
        resets=0,
        coverage_ppm=1_000_000,
        flags=[],
    )
    return Step(line, hour(number), hold * 1000)


def verdict(*steps: Step, close: int = 0, until: int = 0, ended: int | None = None) -> str | None:
    """Of a guest of one core and 1 GiB that was bound at T0; `until` and `ended` in seconds after T0."""
    per_ms = 1_024_000 if steps[0].line.resource == "memory" else 1
    limit = 2**30 if per_ms > 1 else 1000
    end = None if ended is None else (T0 + ended) * 1000
    return fault(steps, limit=limit, per_ms=per_ms, begun=T0 * 1000, ended=end, close=close, until=(T0 + until) * 1000)


def line(account: Account, number: int, *steps: Step) -> Line:
    usage = summarise(steps) if steps else None
    found = used_line(GUEST, CPU, usage, account, hour(number), max_bandwidth_mbps=100, federation="fed")
    assert found is not None
    return found


def test_a_full_core_for_the_whole_time_passes() -> None:
    assert verdict(step(1, 0, CORE_HOUR), step(2, CORE_HOUR, 2 * CORE_HOUR)) is None


def test_more_than_the_limit_for_the_whole_life_is_impossible() -> None:
    assert verdict(step(1, 0, CORE_HOUR + 36_000_000 + 120_000_000)) is None
    assert verdict(step(1, 0, CORE_HOUR + 36_000_000 + 120_000_001)) == "Impossible"
    full = 2**20 * 3600
    assert verdict(step(1, 0, full, resource="memory")) is None
    assert verdict(step(1, 0, full * 11 // 10, resource="memory")) == "Impossible"


def test_more_than_the_limit_since_the_last_reading_is_impossible_also_where_there_is_room_below_the_bound() -> None:
    idle, jump = step(1, 0, 1000), step(2, 1000, 15 * CORE_HOUR // 10)
    assert verdict(idle, jump) == "Impossible"
    assert verdict(jump, close=1000, until=3570) == "Impossible"


def test_what_was_not_read_for_a_while_may_come_at_once() -> None:
    jump = step(2, 1000, 15 * CORE_HOUR // 10)
    assert verdict(step(1, 0, 1000, gaps=1), jump) is None
    assert verdict(step(1, 0, 1000, samples=0), jump) is None
    assert verdict(step(1, 0, 1000, hold=3600), jump) is None


def test_an_ended_pod_uses_nothing_more() -> None:
    assert verdict(step(3, 0, CORE_HOUR), ended=3600) is None
    assert verdict(step(3, 0, 2 * CORE_HOUR), ended=3600) == "Impossible"


def test_a_report_that_begins_before_what_was_accepted_is_not_accepted() -> None:
    assert verdict(step(1, 0, 500), step(1, 0, 600)) == "NotMonotone"
    assert verdict(step(2, 400, 600), close=500) == "NotMonotone"
    assert verdict(step(2, 500, 600), close=500) is None
    assert verdict(step(2, 550, 600), close=500) is None  # a report between them was lost


def test_network_has_the_line_rate_as_its_limit() -> None:
    assert verdict(step(1, 0, 1_250_000 * 3_600_000, resource="network-receive")) is None
    assert verdict(step(1, 0, 1_250_000 * 3_600_000 + 1, resource="network-receive")) == "OverCapacity"


def test_what_is_impossible_does_not_become_payable_by_waiting() -> None:
    account = Account()
    account = account.after(line(account, 1, step(1, 0, 1000)), 1)
    assert account == Account(1000, 1000, 1, (T0 + 3570) * 1000)
    refused = line(account, 2, step(2, 1000, 15 * CORE_HOUR // 10))
    assert (refused.accepted, refused.codes, refused.reading) == ("0", ["Impossible"], None)
    account = account.after(refused, 2)
    for number in (3, 4, 5):
        later = line(account, number, step(number, 15 * CORE_HOUR // 10, 15 * CORE_HOUR // 10 + 5))
        assert (later.accepted, later.codes) == ("0", ["Impossible"])
        account = account.after(later, number)
    assert line(account, 6).codes == ["Impossible"]


def test_a_correction_lets_the_meter_begin_again_where_it_was() -> None:
    account = Account(1000, 1000, 1, T0 * 1000)
    refused = line(account, 2, step(2, 1000, 4 * CORE_HOUR))
    after = account.after(refused, 2)
    assert after.refused
    assert after.without(refused, 2) == Account(1000, 1000, 2)
    assert after.without(line(Account(), 1, step(1, 0, 1000)), 1).refused


@given(
    st.lists(
        st.tuples(st.integers(0, 1_000_000), st.integers(0, 29_000), st.booleans(), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_no_home_that_stays_below_the_limit_is_refused(hours: list[tuple[int, int, bool, bool]]) -> None:
    """Per hour: ppm of the limit that is used, ms between the last sample and the window's end, whether nothing was
    read, and whether the report comes a window late."""
    account, used, read = Account(), 0, 0
    waiting: list[Step] = []
    for number, (ppm, lag_ms, blind, is_late) in enumerate(hours, start=1):
        closed = read if blind else used + 1000 * ppm * (3_600_000 - lag_ms) // 1_000_000
        waiting.append(step(number, read, closed, samples=0 if blind else 240, gaps=int(blind)))
        used, read = used + 1000 * ppm * 3_600_000 // 1_000_000, closed
        if is_late:
            continue
        found = line(account, number, *waiting)
        assert not {"Impossible", "NotMonotone", "Bounded"} & set(found.codes)
        assert int(found.accepted_before) + int(found.accepted) == read
        account, waiting = account.after(found, number), []


@pytest.mark.parametrize("amount", ["4", "6"])
def test_a_line_that_contradicts_itself_is_not_accepted(amount: str) -> None:
    one = step(1, 0, 5)
    assert verdict(Step(one.line.model_copy(update={"amount": amount}), one.window, one.hold_ms)) == "MalformedLine"
