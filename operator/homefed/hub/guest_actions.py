"""Executes what the lifecycle of a guest pod decides: one request per action, each safe to repeat."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from homefed.api import names
from homefed.api.errors import AlreadyExists, Conflict, NotFound
from homefed.core import refusals
from homefed.core.guest_lifecycle import (
    Action,
    CreateGuest,
    DropCopies,
    FailPod,
    FinishPod,
    Inputs,
    LookAgain,
    PatchGuest,
    RecordEvent,
    RefusedSince,
    ReleaseGuest,
    TellPod,
    WriteCopy,
)
from homefed.hub.copies import Copies
from homefed.kube.client import KubeClient
from homefed.kube.events import EventRecorder
from homefed.kube.resources import GUESTPODS, PODS
from homefed.kube.transport import Json

logger = logging.getLogger(__name__)
MAX_TOLD: Final = 50_000
Written = Callable[[str, Json], None]
"""Called with a pod's UID and the object as the API server stored it."""


class GuestActions:
    """The hands of `Guests`; remembers refusals and what was said, nothing that matters after a restart."""

    def __init__(
        self,
        client: KubeClient,
        copies: Copies,
        recorder: EventRecorder,
        *,
        pod_written: Written,
        guest_written: Written,
        guest_created: Written,
        clock: Callable[[], datetime],
    ) -> None:
        self.rounds: dict[str, refusals.Rounds] = {}
        """Controller UID → back-off."""
        self.refused_since: dict[str, datetime] = {}
        self._client, self._copies, self._recorder, self._clock = client, copies, recorder, clock
        self._pod_written, self._guest_written, self._guest_created = pod_written, guest_written, guest_created
        self._told: set[tuple[str, str, str]] = set()

    def forget(self, uid: str) -> None:
        """Nothing of this pod is left."""
        self.refused_since.pop(uid, None)
        if len(self._told) > MAX_TOLD:
            self._told.clear()
        if len(self.rounds) > MAX_TOLD:
            self.rounds.clear()

    async def act(self, inputs: Inputs, actions: list[Action]) -> float | None:
        """In order; the seconds after which to look again. Errors of the tree end it: the queue comes back."""
        again: float | None = None
        for action in actions:
            if isinstance(action, LookAgain):
                again = action.seconds if again is None else min(again, action.seconds)
            else:
                await self._one(inputs, action)
        return again

    async def _one(self, inputs: Inputs, action: Action) -> None:
        match action:
            case TellPod():
                await self._tell(inputs, action)
            case RecordEvent(reason, message):
                await self._record(inputs, reason, message)
            case FinishPod():
                await self._finish(inputs)
            case WriteCopy(obj):
                await self._copies.write(obj)
            case DropCopies():
                await self._copies.drop(inputs.uid)
            case CreateGuest(obj):
                await self._create(inputs, obj)
            case PatchGuest(spec):
                await self._patch_guest(inputs, spec)
            case ReleaseGuest():
                await self._release(inputs)
            case RefusedSince(since):
                self._remember(inputs.uid, since)

    async def _tell(self, inputs: Inputs, action: TellPod) -> None:
        metadata = _pod(inputs)["metadata"]
        before = (_pod(inputs).get("status") or {}).get("reason")
        written = await self._client.patch(
            PODS,
            metadata["name"],
            action.patch,
            metadata["namespace"],
            subresource="status",
            kind_of_patch="strategic",
        )
        self._pod_written(inputs.uid, written)
        if isinstance(action, FailPod):
            owner = refusals.controller_uid(_pod(inputs))
            self.rounds[owner] = refusals.failed(self.rounds.get(owner), self._clock())
        if action.reason and (action.reason != before or isinstance(action, FailPod)):
            await self._record(inputs, action.reason, action.message)

    async def _record(self, inputs: Inputs, reason: str, message: str) -> None:
        """Once per pod, reason and sentence."""
        key = (inputs.uid, reason, message)
        if key in self._told:
            return
        self._told.add(key)
        await self._recorder.record(_pod(inputs), reason, message, "Warning")

    async def _finish(self, inputs: Inputs) -> None:
        metadata = _pod(inputs)["metadata"]
        try:
            await self._client.delete(PODS, metadata["name"], metadata["namespace"], uid=inputs.uid, grace_seconds=0)
        except Conflict:
            logger.info("pod %s: its name is another pod's already", inputs.uid)

    async def _create(self, inputs: Inputs, obj: Json) -> None:
        try:
            written = await self._client.create(GUESTPODS, obj)
        except AlreadyExists:  # from before a crash, or the watch is behind: what is there is what runs
            written = await self._client.get(GUESTPODS, inputs.uid, obj["metadata"]["namespace"])
        self._guest_created(inputs.uid, written)

    async def _patch_guest(self, inputs: Inputs, spec: Json) -> None:
        metadata = _guest(inputs)["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "spec": spec}
        written = await self._client.patch(GUESTPODS, inputs.uid, patch, metadata["namespace"])
        self._guest_written(inputs.uid, written)

    async def _release(self, inputs: Inputs) -> None:
        """Deleted first, so that a kill between the two steps leaves an object that is released again."""
        metadata = _guest(inputs)["metadata"]
        if "deletionTimestamp" not in metadata:
            await self._client.delete(GUESTPODS, inputs.uid, metadata["namespace"], uid=metadata["uid"])
        kept = [name for name in metadata.get("finalizers") or () if name != names.FINALIZER_GUEST]
        patch = {"metadata": {"uid": metadata["uid"], "finalizers": kept}}
        try:
            await self._client.patch(GUESTPODS, inputs.uid, patch, metadata["namespace"])
        except NotFound:
            logger.debug("guest pod %s: released already", inputs.uid)

    def _remember(self, uid: str, since: datetime | None) -> None:
        if since is None:
            self.refused_since.pop(uid, None)
        else:
            self.refused_since[uid] = since


def _pod(inputs: Inputs) -> Json:
    if inputs.pod is None:
        raise AssertionError(f"{inputs.uid}: an action on a pod that is not there")
    return inputs.pod


def _guest(inputs: Inputs) -> Json:
    if inputs.guest is None:
        raise AssertionError(f"{inputs.uid}: an action on a GuestPod that is not there")
    return inputs.guest
