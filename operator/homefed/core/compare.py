"""Comparison before every write: at rest nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def contains(found: Any, wanted: Any) -> bool:
    """Whether `found` says all that `wanted` says: maps by their keys, recursively; lists and scalars wholly.

    Empty and absent are the same: the API server leaves empty lists and maps out.
    """
    if isinstance(wanted, Mapping):
        mapping = found if isinstance(found, Mapping) else {}
        return all(contains(mapping.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        listed = found if isinstance(found, list) else []
        return len(listed) == len(wanted) and all(map(contains, listed, wanted))
    return bool(found == wanted) or (wanted in ("", 0, None, False) and found is None)


def same(found: Any, wanted: Any) -> bool:
    """Whether two values say the same, empty and absent being the same: for what has one writer, such as a status."""
    return contains(found, wanted) and contains(wanted, found)
