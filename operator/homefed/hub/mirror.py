"""A local copy of one of the hub's own kinds, fed by kopf's events.

kopf does not tell of objects that vanished while its watch was broken; so each full pass also compares with a
complete list. What a newer event said meanwhile stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from homefed.kube.reflector import Key, key_of
from homefed.kube.transport import Json

OnChange = Callable[[Key, Json | None, Json | None], None]


class Mirror:
    """`store` has the objects by (namespace, name), the namespace "" for kinds without one; read only."""

    def __init__(self, on_change: OnChange) -> None:
        """`on_change(key, old, new)` hears of every difference; old is None for a new object, new for a deleted one."""
        self.store: dict[Key, Json] = {}
        self._on_change = on_change

    def take(self, event: Any) -> None:
        """One raw watch event of kopf: its type is None in the first list."""
        obj = event["object"]
        self._put(key_of(obj), None if event["type"] == "DELETED" else obj)

    def versions(self) -> dict[Key, str]:
        """What is known now; take it before listing, for `correct`."""
        return {key: _version(obj) for key, obj in self.store.items()}

    def correct(self, listed: Sequence[Json], before: dict[Key, str]) -> None:
        """Make good what events missed, by a complete list begun after `before` was taken."""
        found = {key_of(obj): obj for obj in listed}
        for key in before.keys() - found.keys():
            if _version(self.store.get(key)) == before[key]:
                self._put(key, None)
        for key, obj in found.items():
            if _version(self.store.get(key)) == before.get(key, ""):
                self._put(key, obj)

    def _put(self, key: Key, new: Json | None) -> None:
        old = self.store.get(key)
        if new is None:
            self.store.pop(key, None)
        else:
            new["metadata"].pop("managedFields", None)
            self.store[key] = new
        if _version(old) != _version(new):
            self._on_change(key, old, new)


def _version(obj: Json | None) -> str:
    return f"{obj['metadata']['uid']}/{obj['metadata']['resourceVersion']}" if obj is not None else ""
