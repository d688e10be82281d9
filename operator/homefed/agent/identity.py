"""Who this home is, and its way to the hub: join values, key, salt and tokens, and whether the hub answers.

Two Secrets in the release's namespace: `<release>-join` (home, url, ca, token: from the invitation) and
`<release>-agent` (filled here: keys and salt, see agent.keys; token, token-expires). The newest valid token is used, so
that an upgrade with the values of the first installation does no harm. The key is replaced only when the owner asks for
another, whatever happens to tokens.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.agent import keys as key_store
from homefed.agent.keys import Keys, read_keys, text_of
from homefed.api import names
from homefed.api.errors import Forbidden, HomefedError, Invalid, NotFound, Refused, Unauthorised
from homefed.core import key_rotation
from homefed.core.clock import ClockOffset
from homefed.core.conditions import FALSE, TRUE, UNKNOWN
from homefed.core.findings import Finding
from homefed.core.times import from_rfc3339, to_rfc3339
from homefed.kube.client import IssuedToken, KubeClient
from homefed.kube.resources import LEASES, SECRETS

logger = logging.getLogger(__name__)

PROBE_SECONDS: Final = 5.0
RELOAD_SECONDS: Final = 60.0
SILENT_SECONDS: Final = 20.0
"""Without an answer for so long the hub counts as unreachable."""
TOKEN_SECONDS: Final = 30 * 86_400
RENEW_RETRY_SECONDS: Final = 60.0

Json = dict[str, Any]


@dataclass(frozen=True)
class Join:
    """The invitation's values."""

    home: str
    url: str
    ca: str | None
    token: str = field(repr=False)


@dataclass(frozen=True)
class Token:
    """A bearer token with the times that it states (aware; None where it states none)."""

    text: str = field(repr=False)
    issued: datetime | None
    expires: datetime | None

    def renew_at(self) -> datetime | None:
        """Two thirds into its life; None where it never ends."""
        if self.issued is None or self.expires is None:
            return None
        return self.issued + (self.expires - self.issued) * 2 / 3


class Rejoin(HomefedError):
    """The invitation names another home or hub than this process started with: end it, and start anew."""

    default_reason = "Rejoin"


def read_join(secret: Json) -> Join:
    """The join values; Invalid with reason InvalidJoin names the field that is wrong and the remedy."""
    values = {key: text_of(secret, key) for key in ("home", "url", "ca", "token")}
    checks = {
        "home": (re.fullmatch(names.NAME_PATTERN, values["home"]), "a DNS label of at most 40 characters"),
        "url": (re.fullmatch(r"https://[^\s/]+(/\S*)?", values["url"]), "an address such as https://hub.example:6443"),
        "ca": (not values["ca"] or "-----BEGIN CERTIFICATE-----" in values["ca"], "a PEM certificate"),
        "token": (re.fullmatch(r"[\w.~+/=-]{16,8192}", values["token"]), "the token of the invitation"),
    }
    for key, (good, wanted) in checks.items():
        if not good:
            raise Invalid(
                f"home.join.{key} must be {wanted}; take the values file that `homefed invite NAME` wrote",
                reason="InvalidJoin",
            )
    return Join(values["home"], values["url"], values["ca"] or None, values["token"])


def token(text: str) -> Token:
    """A JWT's own times, unverified: the hub verifies. A token of another form states none."""
    try:
        part = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return Token(text, _moment(claims.get("iat")), _moment(claims.get("exp")))
    except (IndexError, ValueError, AttributeError):
        return Token(text, None, None)


def _moment(seconds: Any) -> datetime | None:
    if not isinstance(seconds, int) or not 0 < seconds < 2**35:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def newest(candidates: list[Token], rejected: set[str], now: datetime) -> Token | None:
    """The token to use: of those that the hub has not refused and that have not expired, the one issued last."""
    valid = [t for t in candidates if t.text not in rejected and (t.expires is None or t.expires > now)]
    return max(valid, key=lambda t: t.issued or datetime.min.replace(tzinfo=UTC), default=None)


class Connection:
    """The home's identity and its client for the hub. `run` keeps both; others read.

    `finding` says for people how it stands; `opened` is set once identity and client are there.
    """

    def __init__(
        self,
        home: KubeClient,
        namespace: str,
        release: str,
        clock: ClockOffset,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._namespace, self._release, self._clock = home, namespace, release, clock
        self._monotonic = monotonic
        self.keys: Keys | None = None
        self.join: Join | None = None
        self.client: KubeClient | None = None
        self.hub_pass: datetime | None = None
        """renewTime of the Lease homefed-hub: start of the hub's last full pass, on its clock."""
        self.finding = Finding(UNKNOWN, "Connecting", "the hub has not been reached yet")
        self.opened = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        """Called when `finding` has changed."""
        self._token: Token | None = None
        self._candidates: list[Token] = []
        self._rejected: set[str] = set()
        self._answered = monotonic()
        self._ever_answered = False
        self._renewal_due = 0.0

    @property
    def mailbox(self) -> str:
        return names.mailbox(self.join.home) if self.join is not None else ""

    @property
    def hub(self) -> KubeClient:
        """The client; only after `opened`."""
        if self.client is None:
            raise Refused(self.finding.message, reason=self.finding.reason)
        return self.client

    @property
    def silent_seconds(self) -> float:
        """Since the hub's last answer, or since the start."""
        return self._monotonic() - self._answered

    @property
    def reachable(self) -> bool:
        return self._ever_answered and self.silent_seconds < SILENT_SECONDS

    def hub_now(self) -> datetime:
        return self._clock.hub_time(datetime.now(UTC))

    async def run(self) -> None:
        """Load, connect, probe and renew until cancelled. Rejoin where the invitation has changed its hub."""
        while not await self._try_load():  # noqa: ASYNC110 - a person changes a Secret
            await asyncio.sleep(PROBE_SECONDS)
        join = self.join
        if join is None:
            raise Invalid("no join values", reason="InvalidJoin")
        first = self._token.text if self._token is not None else join.token
        async with KubeClient.from_token(join.url, join.ca, first, on_date=self._on_date) as client:
            self.client = client
            self.opened.set()
            await self._stay_connected()

    async def _stay_connected(self) -> None:
        loaded = self._monotonic()
        while True:
            await self._probe()
            if self._monotonic() - loaded >= RELOAD_SECONDS or self._token is None:
                await self._try_load()
                loaded = self._monotonic()
            await self._renew_if_due()
            await asyncio.sleep(PROBE_SECONDS)

    async def _try_load(self) -> bool:
        try:
            await self._load()
        except Rejoin:
            raise
        except HomefedError as error:
            if self.client is None:
                self._find(Finding.of(error))
            else:
                logger.warning("identity: %s", error.message, extra={"reason": error.reason})
            return False
        return True

    async def _load(self) -> None:
        """Both Secrets. Keys are made first: a contributor sees his fingerprint even before he is connected."""
        own = await self._secret(f"{self._release}-agent")
        before, self.keys = self.keys, read_keys(own) or await self._make_keys(own)
        if before is not None and self.keys is not None and before.progress != self.keys.progress:
            self.on_change()
        join = read_join(await self._secret(f"{self._release}-join"))
        if self.join is not None and (join.home, join.url, join.ca) != (self.join.home, self.join.url, self.join.ca):
            raise Rejoin(f"the invitation now names home {join.home} at {join.url}: starting anew")
        self.join = join
        self._candidates = [token(join.token), *([token(text)] if (text := text_of(own, "token")) else [])]
        self._choose()

    async def _secret(self, name: str) -> Json:
        try:
            return await self._home.get(SECRETS, name, self._namespace)
        except NotFound as error:
            raise Refused(
                f"Secret {self._namespace}/{name} is missing: install the chart with role home", reason="NotJoined"
            ) from error

    async def _make_keys(self, secret: Json) -> Keys | None:
        """Written before it is used, and only into the Secret as it was read: two processes cannot make two keys."""
        data = key_store.first(Ed25519PrivateKey.generate(), secrets.token_hex(32))
        made = read_keys(await self._patch_own(secret, data))
        logger.info("made the home's key %s", made.fingerprint if made is not None else "")
        return made

    async def _patch_own(self, secret: Json, data: Mapping[str, str | None]) -> Json:
        metadata = {"resourceVersion": secret["metadata"]["resourceVersion"]}
        return await self._home.patch(
            SECRETS, secret["metadata"]["name"], {"metadata": metadata, "data": dict(data)}, self._namespace
        )

    async def rotate(self, home_uid: str, pinned: Collection[str]) -> bool:
        """One step of a change of key (core.key_rotation), where one is due; True when it was the last one.

        `pinned`: fingerprints that the hub names as this home's key; `home_uid`: of the Home there.
        """
        if self.keys is None or key_rotation.step(self.keys.progress, pinned) is None:
            return False
        own = await self._secret(f"{self._release}-agent")
        self.keys = keys = read_keys(own)
        step = key_rotation.step(keys.progress, pinned) if keys is not None else None
        if keys is None or step is None:
            return False
        if step == "Begin":
            changes = key_store.begun(keys, Ed25519PrivateKey.generate(), home_uid, self.hub_now())
        else:
            changes = key_store.finished(keys)
        self.keys = keys = read_keys(await self._patch_own(own, changes))
        logger.info("%s of a change of key: %s", step, keys.progress if keys is not None else "no key")
        return step == "Finish"

    def _choose(self) -> None:
        chosen = newest(self._candidates, self._rejected, self.hub_now())
        if chosen is None:
            self._token = None
            return
        if self.client is not None and (self._token is None or chosen.text != self._token.text):
            self.client.use_token(chosen.text)
        self._token = chosen

    async def _probe(self) -> None:
        """One small read at the hub: says whether it answers, who it thinks we are, and when it last worked."""
        try:
            lease = await self.hub.get(LEASES, names.HUB_LEASE, self.mailbox)
            self._note_pass(lease)
            self._answer(Finding(TRUE, "Connected", f"the hub answers as {self._url()}"))
        except NotFound:
            self._answer(Finding(TRUE, "Connected", f"the hub answers as {self._url()}"))
        except Unauthorised:
            self._refused_token()
        except Forbidden:
            message = f"the hub gives this home no rights in {self.mailbox} (yet): is Home {self._home_name()} there?"
            self._answer(Finding(FALSE, "NotAdmitted", message))
        except HomefedError as error:
            logger.debug("hub: %s", error.message)
            if self.silent_seconds >= SILENT_SECONDS or not self._ever_answered:
                message = f"the hub at {self._url()} does not answer; guests run on, no new ones come"
                self._find(Finding(FALSE, "HubUnreachable", message))

    def _note_pass(self, lease: Json) -> None:
        try:
            self.hub_pass = from_rfc3339(str((lease.get("spec") or {}).get("renewTime")))
        except Invalid:
            self.hub_pass = None

    def _answer(self, finding: Finding) -> None:
        self._answered, self._ever_answered = self._monotonic(), True
        self._rejected.clear()
        self._find(finding)

    def _refused_token(self) -> None:
        """Try the other one; where none is left, a person must invite anew."""
        if self._token is not None:
            self._rejected.add(self._token.text)
        self._choose()
        if self._token is not None:
            return
        now = self.hub_now()
        expired = all(t.expires is not None and t.expires <= now for t in self._candidates)
        what = "has expired" if expired else "is no longer accepted"
        self._find(
            Finding(
                FALSE,
                "TokenExpired" if expired else "TokenRefused",
                f"the home's token {what}: ask the organiser for `homefed invite {self._home_name()} --renew`;"
                " key and earnings are kept",
            )
        )

    async def _renew_if_due(self) -> None:
        due = self._token.renew_at() if self._token is not None else None
        if due is None or self.hub_now() < due or not self.reachable or self._monotonic() < self._renewal_due:
            return
        self._renewal_due = self._monotonic() + RENEW_RETRY_SECONDS
        try:
            issued = await self.hub.token(names.AGENT_SERVICE_ACCOUNT, self.mailbox, seconds=TOKEN_SECONDS)
            await self._store(issued)
        except HomefedError as error:
            logger.warning("token not renewed: %s", error.message, extra={"reason": error.reason})

    async def _store(self, issued: IssuedToken) -> None:
        """Stored before used: a token that only this process knew would be lost with it."""
        own = await self._secret(f"{self._release}-agent")
        data = {"token": issued.token, "token-expires": to_rfc3339(issued.expires_at)}
        await self._patch_own(own, {key: _b64(value.encode()) for key, value in data.items()})
        self._candidates = [*self._candidates[:1], token(issued.token)]
        self._choose()
        logger.info("token renewed until %s", data["token-expires"])

    def _on_date(self, date: datetime) -> None:
        self._clock.observe(date, datetime.now(UTC))

    def _url(self) -> str:
        return self.join.url if self.join is not None else "(unknown)"

    def _home_name(self) -> str:
        return self.join.home if self.join is not None else "NAME"

    def _find(self, finding: Finding) -> None:
        if finding != self.finding:
            log = logger.info if finding.status == TRUE else logger.warning
            log("connection: %s", finding.message, extra={"reason": finding.reason})
            self.finding = finding
            self.on_change()

    @property
    def skew(self) -> timedelta | None:
        """Hub's clock − ours where it is beyond what is tolerated."""
        return self._clock.offset if self._clock.skewed else None

    @property
    def offset(self) -> timedelta:
        return self._clock.offset


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
