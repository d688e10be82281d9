"""Kubernetes quantities as integers in base units; nothing in HomeFed computes with floats or Decimal strings.

Base units: cpu in milli-cores, every other resource in its own unit (bytes, pods, devices).
Grammar: k8s.io/apimachinery resource.Quantity, `<signedNumber><suffix>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Final

from homefed.api.errors import Invalid

CPU: Final = "cpu"
MEMORY: Final = "memory"
EPHEMERAL: Final = "ephemeral-storage"
PODS: Final = "pods"
ALWAYS_OFFERED: Final = (CPU, MEMORY, EPHEMERAL, PODS)

PATTERN: Final = r"^[0-9]{1,18}(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
"""What our own kinds accept: non-negative, bounded, no exponent."""

_NUMBER = re.compile(
    r"^([+-]?[0-9]{1,30}(?:\.[0-9]{0,30})?|[+-]?\.[0-9]{1,30})(n|u|m|k|[MGTPE]i?|Ki|[eE][+-]?[0-9]{1,3})?$"
)
_SCALE: Final = (
    {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(1000)}
    | {suffix: Decimal(1000**power) for power, suffix in enumerate("MGTPE", 2)}
    | {f"{suffix}i": Decimal(1024**power) for power, suffix in enumerate("KMGTPE", 1)}
)
_BINARY: Final = (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))
MAX_QUANTITY: Final = 2**62

Quantities = Mapping[str, int]
"""Resource name → amount in base units."""


def parse(resource: str, text: str | int | float) -> int:
    """Amount in base units, rounded up as Kubernetes does (1m of memory is 1 byte). Invalid for anything else."""
    match = _NUMBER.fullmatch(str(text))
    if match is None:
        raise Invalid(f"{resource}: {text!r} is not a quantity (examples: 500m, 2, 1Gi)", reason="InvalidQuantity")
    number, suffix = match.groups()
    scale = (
        Decimal(f"1{suffix}")
        if suffix and suffix[0] in "eE" and suffix != "E" and suffix != "Ei"
        else _SCALE[suffix or ""]
    )
    exact = Decimal(number) * scale * (1000 if resource == CPU else 1)
    if abs(exact) > MAX_QUANTITY:
        raise Invalid(f"{resource}: {text!r} is absurdly large", reason="InvalidQuantity")
    return int(exact.to_integral_value(rounding=ROUND_CEILING))


def parse_all(quantities: Mapping[str, str | int | float] | None) -> dict[str, int]:
    """A Kubernetes resource list in base units."""
    return {name: parse(name, value) for name, value in (quantities or {}).items()}


def render(resource: str, amount: int) -> str:
    """The shortest exact text: 1500m, 2, 1Gi, 1025."""
    if resource == CPU:
        return f"{amount // 1000}" if amount % 1000 == 0 else f"{amount}m"
    if resource in (MEMORY, EPHEMERAL) or "hugepages" in resource or resource.endswith("storage"):
        for suffix, size in _BINARY:
            if amount and amount % size == 0:
                return f"{amount // size}{suffix}"
    return str(amount)


def render_all(quantities: Quantities) -> dict[str, str]:
    return {name: render(name, amount) for name, amount in sorted(quantities.items())}


def add(left: Quantities, right: Quantities) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}


def subtract(left: Quantities, right: Quantities) -> dict[str, int]:
    """left − right for the resources of left; may be negative."""
    return {name: amount - right.get(name, 0) for name, amount in left.items()}


def fits(request: Quantities, available: Quantities) -> list[str]:
    """The resources of which `request` asks for more than is available, sorted; empty when it fits."""
    return sorted(name for name, amount in request.items() if amount > available.get(name, 0))
