"""ConsumerBudget (hub): how much a consumer's namespace may be charged in a period. Warns first; then new pods of the
namespace that ask for a pool are refused at creation. What runs is never stopped.

In the consumer's namespace, and written by the organiser: neither `edit` nor `admin` of Kubernetes may write it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from homefed.api.meta import AGE_COLUMN, Column, Conditions, Integer, Kind, Model, Time

KIND = Kind(
    kind="ConsumerBudget",
    plural="consumerbudgets",
    scope="Namespaced",
    short_names=("hfb", "budget"),
    columns=(
        Column("Limit", ".spec.limitMicroCredits", "integer"),
        Column("Period", ".spec.period"),
        Column("Spent", ".status.spent"),
        Column("Remaining", ".status.remaining"),
        Column("Exhausted", ".status.exhausted", "boolean"),
        AGE_COLUMN,
    ),
)

Period = Literal["Month", "Total"]


class ConsumerBudgetSpec(Model):
    limit_micro_credits: Annotated[int, Field(ge=0, le=10**15)]
    """µcredit that may be charged in a period; 0 lets nothing new begin."""
    period: Period = "Month"
    """Month: the calendar month, UTC, of the windows that are charged. Total: since the namespace was created."""
    warn_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """Of the limit; from there on condition BudgetLow and a Warning event."""


class ConsumerBudgetStatus(Model):
    observed_generation: Annotated[int, Field(ge=0)] = 0
    period_start: Time | None = None
    """Windows that end after this count; absent for period Total."""
    spent: Integer = "0"
    """µcredit: what the ledger has charged the namespace in the period."""
    estimated: Integer = "0"
    """µcredit: claims on their way, and what running pods have reserved since their last claim."""
    remaining: Integer = "0"
    """limit − spent − estimated; negative where running pods went on."""
    exhausted: bool = False
    """New pods are refused: the admission policy reads this."""
    conditions: Conditions


class ConsumerBudget(Model):
    spec: ConsumerBudgetSpec
    status: ConsumerBudgetStatus | None = None
