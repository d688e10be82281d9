"""A small walker over JSON by an allow-list: what is not named is refused; nothing is carried that no rule names.

Hub and home walk with the same rules and different eyes: what the hub strips (the API server injected it, or it speaks
of scheduling at the hub) is refused at home, because an honest hub never sends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

Stage = Literal["hub", "home"]
Rename = Callable[[str, str], str]
"""(kind, name) of a ConfigMap or Secret → name of its copy."""

MAX_FAULTS: Final = 8
MAX_TEXT: Final = 131_072

NOT_CARRIED: Final = "FieldNotCarried"
FORBIDDEN: Final = "ForbiddenField"
INVALID: Final = "InvalidField"


@dataclass(frozen=True)
class Fault:
    """Why a pod cannot be a guest as it is written. `message` is one sentence with the remedy."""

    field_path: str
    reason: str
    message: str


@dataclass(frozen=True)
class Reference:
    """A ConfigMap or Secret that the pod names."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    optional: bool
    field_path: str


@dataclass
class Walk:
    """One pass: collects faults and references, renames references when `rename` is given."""

    stage: Stage
    rename: Rename | None = None
    faults: list[Fault] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)

    def fault(self, path: str, reason: str, message: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(path, reason, f"{path}: {message}"))


class Rule(Protocol):
    def carry(self, value: Any, path: str, walk: Walk) -> Any:
        """What is carried of a value that is not null; None for nothing."""
        ...


@dataclass(frozen=True)
class Scalar:
    """A string, integer or boolean that is carried; `pattern` binds strings, `least` and `most` integers."""

    types: tuple[type, ...]
    pattern: str | None = None
    home_pattern: str | None = None
    """Instead of `pattern` at home, where what the hub resolves must not be left."""
    least: int = -(2**63)
    most: int = 2**63 - 1
    why: str = "the value is not accepted"

    def carry(self, value: Any, path: str, walk: Walk) -> Any:
        if type(value) not in self.types:
            wanted = " or ".join(kind.__name__ for kind in self.types)
            walk.fault(path, INVALID, f"must be {wanted}")
            return None
        if not self._accepts(value, walk.stage):
            walk.fault(path, FORBIDDEN, self.why)
            return None
        return value

    def _accepts(self, value: Any, stage: Stage) -> bool:
        if isinstance(value, str):
            pattern = self.home_pattern if stage == "home" and self.home_pattern is not None else self.pattern
            return len(value) <= MAX_TEXT and (pattern is None or re.fullmatch(pattern, value) is not None)
        return isinstance(value, bool) or self.least <= value <= self.most


@dataclass(frozen=True)
class Clamped:
    """A non-negative integer, cut to `most` by the hub; at home more than that is a fault."""

    most: int

    def carry(self, value: Any, path: str, walk: Walk) -> Any:
        if type(value) is not int or value < 0 or (walk.stage == "home" and value > self.most):
            walk.fault(path, INVALID, f"must be a number from 0 to {self.most}")
            return None
        return min(value, self.most)


@dataclass(frozen=True)
class Fields:
    """An object of which the named fields are carried; any other that is not empty is a fault."""

    rules: Mapping[str, Rule]
    others: str = "guests cannot have this field; remove it"

    def carry(self, value: Any, path: str, walk: Walk) -> Any:
        if not isinstance(value, dict):
            walk.fault(path, INVALID, "must be an object")
            return None
        carried: dict[str, Any] = {}
        for name, inner in value.items():
            if inner is None:
                continue
            below = f"{path}.{str(name)[:63]}"
            rule = self.rules.get(name)
            if rule is None:
                _unless_empty(inner, below, walk, NOT_CARRIED, self.others)
            elif (kept := rule.carry(inner, below, walk)) is not None:
                carried[name] = kept
        return carried


@dataclass(frozen=True)
class Names:
    """An object that names a ConfigMap or Secret; its name becomes the copy's."""

    kind: Literal["ConfigMap", "Secret"]
    key: str
    fields: Fields

    def carry(self, value: Any, path: str, walk: Walk) -> Any:
        carried = self.fields.carry(value, path, walk)
        if carried is None:
            return None
        name = carried.get(self.key)
        if not name:
            walk.fault(f"{path}.{self.key}", INVALID, f"names no {self.kind}")
            return carried
        walk.references.append(Reference(self.kind, name, carried.get("optional") is True, f"{path}.{self.key}"))
        return carried | ({self.key: walk.rename(self.kind, name)} if walk.rename else {})


@dataclass(frozen=True)
class Items:
    """A list whose every element follows one rule."""

    of: Rule
    most: int = 256

    def carry(self, value: Any, path: str, walk: Walk) -> Any:
        if not isinstance(value, list) or len(value) > self.most:
            walk.fault(path, INVALID, f"must be a list of at most {self.most}")
            return None
        kept = [self.of.carry(inner, f"{path}[{i}]", walk) for i, inner in enumerate(value) if inner is not None]
        return [inner for inner in kept if inner is not None]


@dataclass(frozen=True)
class Quantities:
    """A resource list: names to quantities, as text or number."""

    def carry(self, value: Any, path: str, walk: Walk) -> Any:
        if not isinstance(value, dict) or len(value) > 16:
            walk.fault(path, INVALID, "must name at most 16 resources")
            return None
        for name, amount in value.items():
            if not isinstance(amount, str | int) or isinstance(amount, bool) or len(str(amount)) > 32:
                walk.fault(f"{path}.{str(name)[:63]}", INVALID, "must be a quantity")
        return dict(value)


@dataclass(frozen=True)
class Strip:
    """Recognised at the hub and left behind there; at home its presence is a fault."""

    only: Callable[[Any], bool] | None = None
    why: str = "guests cannot have this value; remove the field"

    def carry(self, value: Any, path: str, walk: Walk) -> Any:
        if walk.stage == "home":
            _unless_empty(value, path, walk, NOT_CARRIED, "an honest hub does not send this field")
        elif self.only is not None and not self.only(value):
            _unless_empty(value, path, walk, FORBIDDEN, self.why)


@dataclass(frozen=True)
class Refuse:
    """Forbidden with its own sentence, unless it is empty or false."""

    why: str

    def carry(self, value: Any, path: str, walk: Walk) -> Any:
        _unless_empty(value, path, walk, FORBIDDEN, self.why)


def _unless_empty(value: Any, path: str, walk: Walk, reason: str, message: str) -> None:
    if value not in (None, False, 0, "", [], {}):
        walk.fault(path, reason, message)
