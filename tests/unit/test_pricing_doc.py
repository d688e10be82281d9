"""docs/pricing.md says what the code computes and prints."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from homefed.api.claim_document import Line
from homefed.api.contribution import ContributionSpec
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import own_price, rates, windows
from homefed.core.ledger import line_amount

ROOT = Path(__file__).parents[2]
TEXT = " ".join((ROOT / "docs" / "pricing.md").read_text(encoding="utf-8").split())
POOL = SchedulingPoolSpec.model_validate(yaml.safe_load((ROOT / "examples/pool-classes.yaml").read_text())["spec"])
OWNER = ContributionSpec.model_validate(
    yaml.safe_load((ROOT / "examples/contribution-priced.yaml").read_text())["spec"]
)
UNITS = 123_456_789


def test_the_worked_example_is_the_formula_of_such_a_line() -> None:
    tariff = rates.tariff(POOL, windows.seconds("2026-11-23T23:00:00Z"))
    price = next(one for one in rates.prices(tariff.card, "fast") if (one.resource, one.basis) == ("cpu", "used"))
    rate = rates.rate_of(price, "fast", OWNER.price.ppm)
    line = Line(
        accepted=str(UNITS),
        accepted_before="0",
        amount=str(line_amount(UNITS, price.micro_credits, price.per, OWNER.price.ppm, tariff.factor_ppm)),
        basis="used",
        bound=str(UNITS),
        codes=[],
        consumer="consumer:fed/ns",
        factor_ppm=tariff.factor_ppm,
        guest_pod="pod",
        rate=rate,
        reported=str(UNITS),
        resource="cpu",
        unit="ucore.s",
    )
    assert rates.formula(line).text in TEXT


def test_the_example_of_an_owner_fits_the_example_of_a_pool_and_a_higher_floor_does_not() -> None:
    assert own_price.objection(POOL.rate_card, OWNER.machine_class, OWNER.price, ["fast"]) is None
    higher = OWNER.price.floors[0].model_copy(update={"micro_credits": 14_500})
    asked = OWNER.price.model_copy(update={"floors": [higher]})
    found = own_price.objection(POOL.rate_card, OWNER.machine_class, asked, ["fast"])
    assert found is not None
    assert found.message in TEXT


def test_every_reason_of_an_owners_price_is_explained() -> None:
    reasons = {value for name, value in vars(own_price).items() if re.fullmatch(r"[A-Z_]{12,}", name)}
    assert len(reasons) == 5
    assert [one for one in reasons if f"`{one}`" not in TEXT] == []
