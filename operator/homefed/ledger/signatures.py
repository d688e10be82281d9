"""Which home has signed a request: the header is checked against the registered homes, and is good once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from homefed.api.errors import Transient, Unauthorised
from homefed.core import request_signature
from homefed.core.request_signature import WINDOW_SECONDS, Request
from homefed.ledger.home_keys import HomeKeys

MAX_SEEN: Final = 20_000
"""Signatures remembered for their window; about 3 MiB. Who is not registered cannot fill it."""
MAX_SEEN_PER_HOME: Final = 2_000
"""So that one home that asks too often shuts out itself only."""
_REMEMBERED: Final = timedelta(seconds=2 * WINDOW_SECONDS)
"""A signature from the ledger's future stays acceptable for that long."""


class HomeSignatures:
    """Checks `X-HomeFed-Signature`. Each signature is good once, within its window around the ledger's clock."""

    def __init__(self, homes: HomeKeys, audience: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """`audience` is the log's origin, which every request names in what it signs."""
        self._homes = homes
        self._audience = audience
        self._now = now
        self._seen: OrderedDict[bytes, tuple[datetime, str]] = OrderedDict()
        self._count: dict[str, int] = {}

    def home(self, header: str, method: str, target: str, body: bytes = b"") -> str:
        """UID of the Home that has signed this request.

        Errors: Unauthorised (MalformedSignature, UnknownKey, SignatureExpired, BadSignature, Replayed); Transient
        (TooManySignatures) where the home, or all homes together, have asked too often within the window.
        """
        now = self._now()
        signature = request_signature.read(header)
        keys = self._homes.by_keyid()
        request_signature.verify(signature, Request(self._audience, method, target, body), keys, now)
        home = self._homes.home(signature.keyid)
        if home is None:
            raise Unauthorised(f"the key {signature.keyid} belongs to no home", reason="UnknownKey")
        self._remember(signature.sig, home, now)
        return home

    def _remember(self, sig: bytes, home: str, now: datetime) -> None:
        while self._seen and next(iter(self._seen.values()))[0] < now:
            _, (_, earlier) = self._seen.popitem(last=False)
            self._count[earlier] -= 1
            if not self._count[earlier]:
                del self._count[earlier]
        if sig in self._seen:
            raise Unauthorised("this very request was answered already: sign a new one", reason="Replayed")
        if self._count.get(home, 0) >= MAX_SEEN_PER_HOME or len(self._seen) >= MAX_SEEN:
            raise Transient("too many signed requests", reason="TooManySignatures", retry_after=60)
        self._seen[sig] = (now + _REMEMBERED, home)
        self._count[home] = self._count.get(home, 0) + 1
