"""What goes through the pipes to and from a reader: pickles behind their lengths.

Both ends are this program, so its own classes are pickled by their fields alone: pickling and restoring a claim by
pydantic's and dataclasses' own state methods costs three times as much, and the writer's core pays for half of it.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

from pydantic import BaseModel

from homefed.api.claim_document import Charge, ClaimHeader, HeldShare, UnitTotal
from homefed.core.ledger import PartSummary, Sums, Transfer
from homefed.core.ledger_reading import CheckedClaim, PartSubmission, Submission

LENGTH: Final = struct.Struct(">I")
Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


def framed(value: object) -> bytes:
    """A value behind its length."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _TABLE
    pickler.dump(value)
    return LENGTH.pack(buffer.tell()) + buffer.getvalue()


def unframed(payload: bytes) -> Any:
    """What was framed, without its length."""
    return pickle.loads(payload)  # noqa: S301 - written by the ledger itself, at the other end of its own pipe


def _model(model: BaseModel) -> Reduced:
    return _restored, (type(model), model.__dict__, model.__pydantic_fields_set__)


def _restored(model: type[BaseModel], values: dict[str, Any], given: set[str]) -> BaseModel:
    """As it was validated, before it was sent."""
    made = model.__new__(model)
    _set(made, "__dict__", values)
    _set(made, "__pydantic_fields_set__", given)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


def _by_fields(kind: type[Any]) -> Callable[[Any], Reduced]:
    values = attrgetter(*[field.name for field in fields(kind)])
    return lambda one: (kind, values(one))


def _claim(claim: CheckedClaim) -> Reduced:
    return _restored_claim, (claim.header, claim.sums, tuple(map(tuple, claim.transfers)))


def _restored_claim(header: ClaimHeader, sums: Sums, transfers: tuple[tuple[str, str, int], ...]) -> CheckedClaim:
    return CheckedClaim(header, sums, tuple(map(Transfer._make, transfers)))


_set = object.__setattr__
_TABLE: Final[dict[Any, Any]] = {
    ClaimHeader: _model,
    Charge: _model,
    HeldShare: _model,
    UnitTotal: _model,
    CheckedClaim: _claim,
    **{kind: _by_fields(kind) for kind in (Submission, PartSubmission, PartSummary, Sums)},
}
"""Everything else is pickled as it is everywhere."""
