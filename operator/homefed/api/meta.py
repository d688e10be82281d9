"""What all kinds share: field types with bounds, conditions, and the markers that the CRD generator reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from homefed.api import names, quantities
from homefed.api.errors import Invalid


@dataclass(frozen=True)
class Rule:
    """A CEL rule (`x-kubernetes-validations`): the API server refuses what makes it false, with this message."""

    rule: str
    message: str
    field_path: str | None = None


@dataclass(frozen=True)
class Column:
    """A printer column of `kubectl get`. Columns of priority 1 show with `-o wide`."""

    name: str
    json_path: str
    type: Literal["string", "integer", "date", "number", "boolean"] = "string"
    priority: int = 0


@dataclass(frozen=True)
class Kind:
    """What a CRD says beside its schema."""

    kind: str
    plural: str
    scope: Literal["Namespaced", "Cluster"]
    short_names: tuple[str, ...]
    columns: tuple[Column, ...] = field(default_factory=tuple)
    role: Literal["hub", "home"] = "hub"
    """The chart role that installs this CRD."""
    name_rule: Rule | None = None
    """A CEL rule over `self.metadata.name`, at the root of the schema."""


class Model(BaseModel):
    """Base of everything inside a custom resource: camelCase in JSON; the API server has pruned unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )
    cel_rules: ClassVar[tuple[Rule, ...]] = ()

    def dump(self) -> dict[str, Any]:
        """JSON form with unset optional fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Document(Model):
    """Base of signed documents: closed, so that nothing leaves or enters that the schema does not name."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,
        arbitrary_types_allowed=False,
    )


Bounded = Annotated[str, Field(max_length=1024)]
Short = Annotated[str, Field(max_length=253)]
Name = Annotated[str, Field(max_length=40, pattern=names.NAME_PATTERN)]
ObjectName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Uid = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-zA-Z-]{1,64}$")]
Digest = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
"""RFC 3339, UTC, e.g. 2026-01-31T10:00:00Z or with microseconds."""
Quantity = Annotated[str, Field(max_length=32, pattern=quantities.PATTERN)]
ResourceName = Annotated[str, Field(max_length=63)]
ResourceList = Annotated[dict[str, Quantity], Field(max_length=16)]
LabelMap = Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=64)]
Integer = Annotated[str, Field(max_length=40, pattern=r"^-?(0|[1-9][0-9]{0,38})$")]
"""A decimal integer as text: JSON numbers are doubles in half of the world's parsers."""


class Condition(Model):
    """metav1.Condition; `Ready` is the summary, `observedGeneration` says which spec it speaks of."""

    type: Annotated[str, Field(max_length=63)]
    status: Literal["True", "False", "Unknown"]
    observed_generation: Annotated[int, Field(ge=0)] = 0
    last_transition_time: Time
    reason: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    message: Annotated[str, Field(max_length=1024)] = ""


Conditions = Annotated[
    list[Condition],
    Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]

READY_COLUMNS = (
    Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
    Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
)
AGE_COLUMN = Column("Age", ".metadata.creationTimestamp", "date")

M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], value: Any, *, where: str) -> M:
    """Validate untrusted input; Invalid names each wrong field below `where` (at most five)."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = [f"{where}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)[:5]]
        raise Invalid("; ".join(faults), reason="InvalidField") from error
