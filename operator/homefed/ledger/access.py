"""Who may do what: submitters by an explicit list, homes for what is theirs, consumers for their namespaces.

    submitter   shown by the bearer token of a listed username, or by a client certificate with a listed common name;
                may do everything
    home        shown by X-HomeFed-Signature, made with the Home's pinned key; its own statement and lines
    consumer    shown by the bearer token of a user who may `get consumerstatements.homefed.io` in a namespace; the
                statement and the lines of that namespace

An API server's service proxy strips `Authorization`, so a token may come as `X-HomeFed-Authorization` as well.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from homefed.api.errors import Forbidden, NotFound, Refused, Transient, Unauthorised
from homefed.api.names import GROUP, consumer_account, contributor_account, held_account
from homefed.kube.client import KubeClient
from homefed.kube.resources import NAMESPACES
from homefed.ledger.auth import Authenticator, User
from homefed.ledger.signatures import HomeSignatures

CONSUMER_RESOURCE: Final = "consumerstatements"
TOKEN_HEADERS: Final = ("X-HomeFed-Authorization", "Authorization")
REMEMBERED_SECONDS: Final = 30.0
"""A right that is taken away still holds for so long."""
_REMEMBERED: Final = 1024


@dataclass(frozen=True)
class Credentials:
    """What a request shows of itself, read from its headers and its connection; nothing is believed yet."""

    method: str
    target: str
    """Path and query, not decoded."""
    token: str | None
    signature: str | None
    """The header X-HomeFed-Signature."""
    certificate: Mapping[str, Any] | None
    """The peer's certificate as `ssl` gives it, verified against the client CA; None without one."""


@dataclass(frozen=True)
class Caller:
    kind: Literal["user", "certificate", "home"]
    name: str
    """Username, common name, or the Home's UID."""
    groups: tuple[str, ...] = ()


class ConsumerRights(Protocol):
    async def namespace_uid(self, user: User, namespace: str) -> str:
        """UID of the namespace, to a user who may read its statements. Errors: Forbidden, Transient."""


class NamespaceReviews:
    """Asks the cluster (SubjectAccessReview), then for the namespace's UID; answers are remembered for a short time."""

    def __init__(self, client: KubeClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._seen: OrderedDict[tuple[User, str], tuple[float, str]] = OrderedDict()

    async def namespace_uid(self, user: User, namespace: str) -> str:
        until, uid = self._seen.get((user, namespace), (0.0, ""))
        if self._clock() < until:
            return uid
        uid = await self._ask(user, namespace)
        self._seen[(user, namespace)] = (self._clock() + REMEMBERED_SECONDS, uid)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return uid

    async def _ask(self, user: User, namespace: str) -> str:
        """The right is asked for first: who has none does not learn which namespaces there are."""
        attributes = {"verb": "get", "group": GROUP, "resource": CONSUMER_RESOURCE, "namespace": namespace}
        try:
            allowed = await self._client.review_access(user.name, user.groups, attributes)
            found = await self._client.get(NAMESPACES, namespace) if allowed else None
        except NotFound:
            found = None
        except Refused as error:
            # The ledger's own rights are missing: not the caller's fault.
            raise Transient(f"rights cannot be reviewed now: {error.message}", reason="ReviewFailed") from error
        uid = found.get("metadata", {}).get("uid") if found else None
        if not isinstance(uid, str) or not uid:
            raise Forbidden(f"{user.name} may not get {CONSUMER_RESOURCE}.{GROUP} in namespace {namespace}")
        return uid


@dataclass(frozen=True)
class Access:
    """The rights of one ledger. Errors of all methods: Unauthorised, Forbidden, Transient."""

    federation: str
    submitters: frozenset[str]
    """Usernames."""
    certificate_names: frozenset[str]
    """Common names of client certificates that may submit."""
    authenticator: Authenticator
    signatures: HomeSignatures
    consumers: ConsumerRights | None
    """None outside of Kubernetes: then there are no consumers to ask about."""

    async def caller(self, shown: Credentials, body: bytes = b"") -> Caller:
        if shown.signature is not None:
            return Caller("home", self.signatures.home(shown.signature, shown.method, shown.target, body))
        if shown.token is not None:
            user = await self.authenticator.user(shown.token)
            return Caller("user", user.name, user.groups)
        name = common_name(shown.certificate)
        if name is None:
            raise Unauthorised("a bearer token, a signed request or a client certificate is needed")
        return Caller("certificate", name)

    async def submitter(self, shown: Credentials) -> Caller:
        caller = await self.caller(shown)
        if not self.submits(caller):
            raise Forbidden(f"{caller.kind} {caller.name} is not on the list of submitters of this ledger")
        return caller

    def submits(self, caller: Caller) -> bool:
        names = {"user": self.submitters, "certificate": self.certificate_names}.get(caller.kind, frozenset())
        return caller.name in names

    async def reader(self, shown: Credentials, namespace: str | None) -> Reading:
        """What this caller may see of statements and lines; `namespace` is the one that a consumer asks about."""
        caller = await self.caller(shown)
        if self.submits(caller):
            return Reading("submitter", frozenset())
        if caller.kind == "home":
            own = (contributor_account(self.federation, caller.name), held_account(self.federation, caller.name))
            return Reading("home", frozenset(own))
        if caller.kind != "user" or namespace is None or self.consumers is None:
            raise Forbidden(f"{caller.kind} {caller.name} is no submitter, and names no namespace to read of")
        uid = await self.consumers.namespace_uid(User(caller.name, caller.groups), namespace)
        return Reading("consumer", frozenset({consumer_account(self.federation, uid)}))


@dataclass(frozen=True)
class Reading:
    """Accounts that a caller may read of."""

    role: Literal["submitter", "home", "consumer"]
    accounts: frozenset[str]
    """Submitters read of all."""

    def require(self, account: str) -> None:
        if not self.sees(account):
            raise Forbidden(f"the statement of {account} is its owner's and the submitters' only")

    def sees(self, account: str) -> bool:
        return self.role == "submitter" or account in self.accounts


def common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """The one common name of a certificate's subject; None where it has none, or several."""
    subject = (certificate or {}).get("subject", ())
    names = [value for attributes in subject for key, value in attributes if key == "commonName"]
    return names[0] if len(names) == 1 else None


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """Of our own header before `Authorization`. Errors: Unauthorised where one is there and is no bearer token."""
    for name in TOKEN_HEADERS:
        if name in headers:
            scheme, _, token = headers[name].partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise Unauthorised(f"{name}: expected `Bearer TOKEN`")
            return token.strip()
    return None
