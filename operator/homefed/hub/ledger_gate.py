"""The hub's way to its ledger: left alone while it is down or busy, believed only while its history holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from homefed.api import dsse
from homefed.api.errors import HomefedError, Incident, Transient
from homefed.core.witness import Head
from homefed.ledger_client.documents import Chain as Place
from homefed.ledger_client.documents import Claim as Stored
from homefed.ledger_client.documents import Submission, Submitted

CHECK_SECONDS: Final = 60.0
"""Between two looks at the ledger's checkpoint; every receipt is one, too."""
PAUSE_SECONDS: Final = 2.0
MAX_PAUSE_SECONDS: Final = 300.0
"""After a failure that passes by itself the ledger is left alone for as long as it asked, within these bounds."""


class Ledger(Protocol):
    """What settlement needs of the ledger client, which says what each of these raises."""

    async def submit(self, claims: Sequence[Submission]) -> Submitted: ...

    async def claim(self, claim_id: str) -> Stored: ...

    async def part(self, claim_id: str, number: int) -> dict[str, Any]: ...

    async def chain(self, pool: str, account: str, sequence: int | None = None) -> Place | None: ...

    async def check(self) -> Head: ...

    async def confirm(self, receipt: str, envelope: dsse.Envelope) -> None: ...

    def forget(self) -> None: ...


class NoLedger:
    """Where none is configured: claims are made and stored, and wait."""

    async def submit(self, claims: Sequence[Submission]) -> Submitted:
        return Submitted((), _no_ledger())

    async def claim(self, claim_id: str) -> Stored:
        raise _no_ledger()

    async def part(self, claim_id: str, number: int) -> dict[str, Any]:
        raise _no_ledger()

    async def chain(self, pool: str, account: str, sequence: int | None = None) -> Place | None:
        raise _no_ledger()

    async def check(self) -> Head:
        raise _no_ledger()

    async def confirm(self, receipt: str, envelope: dsse.Envelope) -> None:
        raise _no_ledger()

    def forget(self) -> None:
        """There is nothing to forget."""


def _no_ledger() -> Transient:
    return Transient("no ledger is configured: claims are kept, and sent once there is one", reason="NoLedger")


class LedgerGate:
    """One per hub operator. One home's answer holds for all: a ledger that is down is not asked once per home."""

    def __init__(self, ledger: Ledger | None) -> None:
        """None: none is configured."""
        self._ledger: Ledger = ledger or NoLedger()
        self.configured = not isinstance(self._ledger, NoLedger)
        self.incident: Incident | None = None
        """What is wrong with the ledger as a whole: nothing is settled while it is so."""
        self._pause: tuple[datetime, Transient] | None = None
        """Until when the ledger is left alone, and what it had said."""
        self._next_check: datetime | None = None

    async def check(self, now: datetime) -> None:
        """Look whether the ledger's newest checkpoint continues those before, once in a while and while it does not."""
        due = self.incident is not None or self._next_check is None or now >= self._next_check
        if not self.configured or not due:
            return
        try:
            async with self.asked(now) as ledger:
                await ledger.check()
        except Incident as error:
            self.incident = error
        except HomefedError:
            return  # it is told where something is to be sent
        else:
            self.incident = None
            self._next_check = now + timedelta(seconds=CHECK_SECONDS)

    def begin_anew(self) -> None:
        """By the organiser's word: the ledger's next checkpoint is where its history begins."""
        self._ledger.forget()
        self.incident, self._next_check = None, None

    async def submit(self, claims: Sequence[Submission], now: datetime) -> Submitted:
        """As the client's; while the ledger is left alone its last answer is the trouble."""
        try:
            self._check_pause(now)
        except Transient as error:
            return Submitted((), error)
        submitted = await self._ledger.submit(claims)
        if isinstance(submitted.trouble, Transient):
            self._note_pause(submitted.trouble, now)
        return submitted

    @asynccontextmanager
    async def asked(self, now: datetime) -> AsyncIterator[Ledger]:
        """The ledger, for questions; Transient at once while it is left alone."""
        self._check_pause(now)
        try:
            yield self._ledger
        except Transient as error:
            self._note_pause(error, now)
            raise

    def _check_pause(self, now: datetime) -> None:
        if self._pause is not None and now < self._pause[0]:
            raise self._pause[1]
        self._pause = None

    def _note_pause(self, error: Transient, now: datetime) -> None:
        seconds = min(MAX_PAUSE_SECONDS, max(PAUSE_SECONDS, error.retry_after or 0.0))
        self._pause = now + timedelta(seconds=seconds), error
