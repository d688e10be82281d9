"""Reserved from the hub's observation, used bounded by it, money split without loss."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.claim_document import Line
from homefed.api.rate_card import Price
from homefed.api.report_document import UNITS, ReportLine
from homefed.core.ledger import line_amount
from homefed.core.report_gates import Step
from homefed.core.rewards import Account, Observation, Usage, bound, observation, reserved_line, summarise, used_line
from homefed.core.rounding import split
from homefed.core.windows import Window

T0 = 1_767_225_600
HOUR = Window(T0, T0 + 3600)
UID = "11111111-2222-3333-4444-555555555555"
GIB = 2**30

CPU_RESERVED = Price(resource="cpu", basis="reserved", micro_credits=1_000_000, per="core-hour")
CPU_USED = Price(resource="cpu", basis="used", micro_credits=2_000_000, per="core-hour")
MEMORY_RESERVED = Price(resource="memory", basis="reserved", micro_credits=500_000, per="GiB-hour")
RECEIVED = Price(resource="network-receive", basis="used", micro_credits=1_000, per="GiB")


def pod(
    *,
    running: int | None = 0,
    ended: int | None = None,
    blind: tuple[tuple[int, int | None], ...] = (),
    **requests: int,
) -> Observation:
    """Seconds after T0; 1 core and 1 GiB unless given."""
    return Observation(
        uid=UID,
        namespace_uid="ns-1",
        requests=requests or {"cpu": 1000, "memory": GIB},
        bound=(T0 - 5) * 1000,
        running=None if running is None else (T0 + running) * 1000,
        ended=None if ended is None else (T0 + ended) * 1000,
        blind=tuple(((T0 + a) * 1000, None if b is None else (T0 + b) * 1000) for a, b in blind),
    )


def reported(resource: str, opened: int, closed: int, window: Window | None = None, **more: object) -> Usage:
    fields = {"samples": 240, "expected": 240, "gaps": 0, "resets": 0, "coverage_ppm": 1_000_000, "flags": []}
    values = {
        "unit": UNITS[resource],  # type: ignore[index]
        "open": str(opened),
        "close": str(closed),
        "amount": str(closed - opened),
        **fields,
        **more,
    }
    line = ReportLine(guest_pod=UID, resource=resource, **values)  # type: ignore[arg-type]
    return summarise([Step(line, HOUR if window is None else window, 30_000)])


def used(
    usage: Usage | None,
    *,
    price: Price = CPU_USED,
    guest: Observation | None = None,
    before: Account | None = None,
    window: Window = HOUR,
) -> Line | None:
    return used_line(
        guest or pod(),
        price,
        usage,
        before or Account(),
        window,
        max_bandwidth_mbps=100,
        federation="fed",
    )


def test_a_reserved_core_for_an_hour_costs_what_the_card_says() -> None:
    line = reserved_line(pod(), CPU_RESERVED, Account(), HOUR, "fed")
    assert line is not None
    assert (line.accepted, line.unit, line.amount) == ("3600000000", "ucore.s", "1000000")
    assert line.consumer == "consumer:fed/ns-1"


def test_memory_storage_and_devices_have_their_own_units() -> None:
    guest = pod(**{"memory": GIB, "ephemeral-storage": 2 * GIB, "nvidia.com/gpu": 2})
    memory = reserved_line(guest, MEMORY_RESERVED, Account(), HOUR, "fed")
    storage = reserved_line(
        guest,
        Price(resource="ephemeral-storage", basis="reserved", micro_credits=10, per="GiB-hour"),
        Account(),
        HOUR,
        "fed",
    )
    gpu = reserved_line(
        guest,
        Price(resource="nvidia.com/gpu", basis="reserved", micro_credits=7, per="gpu-hour"),
        Account(),
        HOUR,
        "fed",
    )
    assert memory is not None
    assert storage is not None
    assert gpu is not None
    assert [one.amount for one in (memory, storage, gpu)] == ["500000", "20", "14"]
    assert [one.unit for one in (memory, storage, gpu)] == ["KiB.s", "KiB.s", "ugpu.s"]


def test_blind_intervals_are_not_reserved_also_when_they_overlap_or_last() -> None:
    guest = pod(blind=((600, 1200), (900, 1500), (3000, None)))
    assert guest.reserved_ms(HOUR.end_ms) == (3600 - 900 - 600) * 1000


def test_usage_reported_late_for_a_blind_interval_is_payable() -> None:
    guest = pod(blind=((0, 3600),))
    assert guest.reserved_ms(HOUR.end_ms) == 0
    line = used(reported("cpu", 0, 3_000_000_000), guest=guest)
    assert line is not None
    assert line.accepted == "3000000000"


def test_a_pod_that_the_hub_never_saw_running_owes_nothing() -> None:
    assert reserved_line(pod(running=None), CPU_RESERVED, Account(), HOUR, "fed") is None
    line = used(reported("cpu", 0, 5), guest=pod(running=None))
    assert line is not None
    assert (line.accepted, line.reported, line.codes) == ("0", "5", ["Bounded"])


def test_used_is_accepted_up_to_the_bound_and_the_gap_stays_visible() -> None:
    line = used(reported("cpu", 0, 3_700_000_000))
    assert line is not None
    assert (line.reported, line.bound, line.accepted) == ("3700000000", "3600000000", "3600000000")
    assert line.codes == ["Bounded"]


def test_what_lay_above_the_bound_is_payable_when_the_bound_has_grown() -> None:
    line = used(None, before=Account(3_600_000_000, 3_700_000_000), window=Window(T0 + 3600, T0 + 7200))
    assert line is not None
    assert line.accepted == "100000000"
    assert "NoReport" in line.codes


def test_without_a_report_nothing_used_is_paid() -> None:
    line = used(None)
    assert line is not None
    assert (line.accepted, line.amount, line.codes) == ("0", "0", ["NoReport"])


def test_a_report_that_comes_late_is_made_good_by_the_next_claim() -> None:
    line = used(reported("cpu", 1_000_000_000, 2_000_000_000), window=Window(T0 + 3600, T0 + 7200))
    assert line is not None
    assert (line.reported, line.accepted) == ("2000000000", "2000000000")
    assert line.reading is not None
    assert (line.reading.open, line.reading.close) == ("0", "2000000000")


@pytest.mark.parametrize(
    ("usage", "before", "code"),
    [
        (reported("cpu", 0, 10**13), Account(), "Impossible"),
        (reported("network-receive", 0, 10**13), Account(), "OverCapacity"),
        (reported("cpu", 0, 5), Account(10, 10), "NotMonotone"),
        (reported("cpu", 0, 5, amount="4"), Account(), "MalformedLine"),
        (reported("cpu", 0, 5, unit="byte"), Account(), "MalformedLine"),
    ],
)
def test_what_fails_a_gate_is_rejected_with_a_code_and_kept(usage: Usage, before: Account, code: str) -> None:
    line = used(usage, before=before)
    assert line is not None
    assert (line.accepted, line.reading) == ("0", None)
    assert code in line.codes


def test_network_is_bounded_by_the_pools_bandwidth() -> None:
    assert bound(pod(), "network-receive", HOUR.end_ms, 100) == 100_000_000 // 8 * 3600
    line = used(reported("network-receive", 0, 2 * GIB), price=RECEIVED)
    assert line is not None
    assert (line.amount, line.unit) == ("2000", "byte")


def test_a_resource_without_meter_has_no_used_line() -> None:
    assert used(None, price=Price(resource="nvidia.com/gpu", basis="used", micro_credits=1, per="gpu-hour")) is None


def test_an_observation_is_read_from_the_guest_pod() -> None:
    found = observation(
        {
            "metadata": {"name": UID},
            "spec": {
                "podUid": UID,
                "namespaceUid": "ns-1",
                "requests": {"cpu": "250m", "memory": "1Gi"},
                "observed": {
                    "boundAt": "2026-01-01T00:00:00Z",
                    "runningFrom": "2026-01-01T00:00:01.500000Z",
                    "intervals": [{"start": "2026-01-01T00:10:00Z", "end": "2026-01-01T00:20:00Z"}],
                },
            },
        }
    )
    assert found.requests == {"cpu": 250, "memory": GIB}
    assert found.reserved_ms((T0 + 3600) * 1000) == (3600 - 600) * 1000 - 1500


@given(st.integers(0, 10**18), st.integers(0, 500_000), st.integers(0, 750_000))
def test_paid_held_fee_and_dust_are_the_charge(charged: int, fee_ppm: int, held_ppm: int) -> None:
    shares = split(charged, fee_ppm=fee_ppm, held_ppm=held_ppm)
    assert shares.paid + shares.held + shares.fee + shares.dust == charged
    assert 0 <= shares.dust <= 2
    assert min(shares.paid, shares.held, shares.fee) >= 0


moments = st.integers(0, 10_000_000)


@given(
    st.lists(st.integers(1, 5_000_000), min_size=1, max_size=8),
    st.lists(st.tuples(moments, st.one_of(st.none(), moments)), max_size=4),
    st.integers(1, 4000),
)
def test_reserved_amounts_of_any_windows_add_up_to_the_whole(
    lengths: list[int], blind: list[tuple[int, int | None]], mcores: int
) -> None:
    guest = Observation(UID, "ns", {"cpu": mcores, "memory": 1023}, 0, 0, None, tuple(blind))
    for price in (CPU_RESERVED, MEMORY_RESERVED):
        accepted, end = 0, 0
        for length in lengths:
            end += length
            line = reserved_line(guest, price, Account(accepted), Window(0, end), "fed")
            accepted += int(line.accepted) if line is not None else 0
        whole = reserved_line(guest, price, Account(), Window(0, end), "fed")
        assert accepted == (int(whole.accepted) if whole is not None else 0)


@given(st.lists(st.integers(0, 10_000_000_000), min_size=1, max_size=10))
def test_used_never_exceeds_what_was_reported_or_what_the_hub_allows(closes: list[int]) -> None:
    """Whatever cumulative values a home claims, in whatever order."""
    account, highest = Account(), 0
    for number, close in enumerate(closes, start=1):
        window = Window(T0, T0 + 600 * number)
        line = used(reported("cpu", 0, close), before=account, window=window)
        if line is None:
            continue
        accepted = account.accepted + int(line.accepted)
        account = Account(accepted, int(line.reading.close) if line.reading is not None else account.close)
        highest = max(highest, close)
        assert accepted <= min(highest, bound(pod(), "cpu", window.end_ms, 100))
        assert int(line.accepted) <= int(line.bound)
        assert int(line.amount) == line_amount(int(line.accepted), line.rate.micro_credits, line.rate.per)
