"""An honest home is docked in none of a thousand windows of outages, restarts, churn, late reports, wrong clocks."""

from __future__ import annotations

from attacks.attempts import BUSY
from attacks.days import WINDOWS, day, through
from attacks.honest import Eventful, HonestHome, Weather

HOMES = 50


class Larger(Eventful):
    """Of which the hub believes that it requests less than it uses."""

    @property
    def requests(self) -> dict[str, str]:
        return {"cpu": "500m", "memory": "128Mi"}


def test_no_window_of_a_thousand_is_docked() -> None:
    days = [day(seed) for seed in range(HOMES)]
    assert sum(one.windows for one in days) == HOMES * WINDOWS == 1000
    assert [text for one in days for text in one.docked] == []
    true, paid = sum(one.true for one in days), sum(one.paid for one in days)
    assert 0.97 < paid / true <= 1.0005


def test_a_home_that_is_docked_would_be_found() -> None:
    docked = through(HonestHome([Larger(BUSY.uid, 0.95)], Weather(), seed=1)).docked
    assert any("Impossible" in text for text in docked)
    assert any("accepted" in text for text in docked)
