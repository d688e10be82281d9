"""Who is asking: a bearer token to a user. What a user may do is said in `access`; an audience alone says nothing."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from homefed.api.errors import Invalid, Refused, Transient, Unauthorised
from homefed.api.names import LEDGER_AUDIENCE
from homefed.kube.client import KubeClient

REMEMBERED_SECONDS: Final = 30.0
"""A revoked token is accepted for so long."""
_REMEMBERED: Final = 256
_CONCURRENT: Final = 8
"""Reviews at one time: who floods the ledger with made-up tokens shall not flood the API server."""


@dataclass(frozen=True)
class User:
    """As the cluster (or the token file) knows them."""

    name: str
    groups: tuple[str, ...] = ()


class Authenticator(Protocol):
    async def user(self, token: str) -> User:
        """Errors: Unauthorised, and Transient when it cannot be found out now."""


class StaticTokens:
    """Tokens from a file, for tests and for a ledger outside Kubernetes."""

    def __init__(self, path: Path) -> None:
        """One `<token> <username>` per line; empty lines and lines with # are left out. Errors: Invalid."""
        self._users: dict[bytes, User] = {}
        for number, line in enumerate(path.read_text().splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or len(words[0]) < 16:
                raise Invalid(f"{path}:{number}: expected a token of at least 16 characters and a username")
            self._users[_hidden(words[0])] = User(words[1])

    async def user(self, token: str) -> User:
        found = self._users.get(_hidden(token))
        if found is None:
            raise Unauthorised("the bearer token is not known")
        return found


class TokenReviews:
    """Tokens of Kubernetes, for our audience only; answers are remembered for a short time."""

    def __init__(self, client: KubeClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._reviewing = asyncio.Semaphore(_CONCURRENT)
        self._seen: OrderedDict[bytes, tuple[float, User]] = OrderedDict()

    async def user(self, token: str) -> User:
        key = _hidden(token)
        until, found = self._seen.get(key, (0.0, User("")))
        if self._clock() < until:
            return found
        found = await self._review(token)
        self._seen[key] = (self._clock() + REMEMBERED_SECONDS, found)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return found

    async def _review(self, token: str) -> User:
        try:
            async with self._reviewing:
                status = await self._client.review_token(token, audiences=[LEDGER_AUDIENCE])
        except Refused as error:
            # Our own rights are missing, or our own token is not accepted: that is not the caller's fault.
            raise Transient(f"tokens cannot be reviewed now: {error.message}", reason="ReviewFailed") from error
        user = status.get("user")
        name = user.get("username") if isinstance(user, dict) else None
        audiences = status.get("audiences")
        if status.get("authenticated") is not True or not isinstance(name, str) or not name:
            raise Unauthorised("the bearer token is not accepted by the cluster")
        if not isinstance(audiences, list) or LEDGER_AUDIENCE not in audiences:
            raise Unauthorised(f"the bearer token is not for audience {LEDGER_AUDIENCE}")
        groups = user.get("groups") if isinstance(user, dict) else None
        return User(name, tuple(map(str, groups)) if isinstance(groups, list) else ())


def _hidden(token: str) -> bytes:
    """Tokens are compared and kept as digests: nothing to read in a dump, no timing to measure."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
