"""Every way in, and every refusal: nobody sees another's statement, and an answer never depends on a right assumed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from homefed.api.errors import Forbidden, HomefedError, NotFound, Transient, Unauthorised
from homefed.core.request_signature import Request, sign
from homefed.ledger import access as rules
from homefed.ledger.access import Access, Credentials, NamespaceReviews, bearer_token, common_name
from homefed.ledger.auth import StaticTokens, User
from homefed.ledger.home_keys import HomeKeys
from homefed.ledger.signatures import HomeSignatures
from testbed.claims import FEDERATION, hub_key, public

AUDIENCE = f"homefed.io/ledger/{FEDERATION}"
HUB, ALICE = "hub-token-0123456789", "alice-token-0123456789"
PATH = "/v1/accounts/x/statement"
STATEMENTS = {"verb": "get", "group": "homefed.io", "resource": "consumerstatements"}


class Cluster:
    """Answers like `KubeClient`: alice may read the statements of namespace lab, whose UID is ns-1."""

    def __init__(self) -> None:
        self.error: HomefedError | None = None
        self.asked: list[tuple[str, tuple[str, ...], Mapping[str, str]]] = []
        self.allowed = True
        self.namespaces: dict[str, Any] = {"lab": {"metadata": {"uid": "ns-1"}}}

    async def review_access(self, username: str, groups: Sequence[str], attributes: Mapping[str, str]) -> bool:
        if self.error:
            raise self.error
        self.asked.append((username, tuple(groups), attributes))
        return self.allowed and username == "alice" and attributes["namespace"] == "lab"

    async def get(self, _: object, name: str) -> dict[str, Any]:
        if name not in self.namespaces:
            raise NotFound(f"namespace {name}")
        return dict(self.namespaces[name])


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def access(tmp_path: Path, cluster: Cluster) -> Access:
    (tmp_path / "tokens").write_text(f"{HUB} hub\n{ALICE} alice\n")
    homes = tmp_path / "homes"
    homes.mkdir()
    (homes / "home-1").write_bytes(base64.b64encode(public(hub_key(11))))
    return Access(
        federation=FEDERATION,
        submitters=frozenset({"hub"}),
        certificate_names=frozenset({"billing.example"}),
        authenticator=StaticTokens(tmp_path / "tokens"),
        signatures=HomeSignatures(HomeKeys(homes), AUDIENCE),
        consumers=NamespaceReviews(cluster),  # type: ignore[arg-type]
    )


def certificate(*names: str) -> dict[str, Any]:
    return {"subject": ((("organizationName", "x"),), *((("commonName", name),) for name in names))}


def shown(**changes: Any) -> Credentials:
    nothing = {"method": "GET", "target": PATH, "token": None, "signature": None, "certificate": None}
    return Credentials(**(nothing | changes))


def signed(seed: int = 11) -> Credentials:
    return shown(signature=sign(Request(AUDIENCE, "GET", PATH), hub_key(seed), datetime.now(UTC)))


@pytest.mark.parametrize("credentials", [shown(token=HUB), shown(certificate=certificate("billing.example"))])
async def test_a_listed_username_or_common_name_submits_and_reads_everything(
    access: Access, credentials: Credentials
) -> None:
    await access.submitter(credentials)
    (await access.reader(credentials, None)).require("consumer:example/anyone")


@pytest.mark.parametrize(
    ("credentials", "error"),
    [
        (shown(), Unauthorised),
        (shown(token="nobody-knows-this-token"), Unauthorised),
        (shown(token=ALICE), Forbidden),
        (shown(certificate={}), Unauthorised),
        (shown(certificate=certificate()), Unauthorised),
        (shown(certificate=certificate("hub")), Forbidden),
        (shown(certificate=certificate("other", "billing.example")), Unauthorised),
        (shown(signature="nonsense"), Unauthorised),
    ],
)
async def test_nobody_else_submits_or_reads_all(
    access: Access, credentials: Credentials, error: type[HomefedError]
) -> None:
    with pytest.raises(error):
        await access.submitter(credentials)
    with pytest.raises(error):
        await access.reader(credentials, None)


async def test_a_username_is_no_common_name_and_a_home_is_no_submitter(access: Access) -> None:
    widened = Access(
        FEDERATION, frozenset({"home-1"}), frozenset({"hub"}), access.authenticator, access.signatures, access.consumers
    )
    for credentials in (shown(token=HUB), signed(), shown(certificate=certificate("home-1"))):
        with pytest.raises(Forbidden):
            await widened.submitter(credentials)


async def test_a_bad_signature_is_not_made_good_by_a_token_beside_it(access: Access) -> None:
    with pytest.raises(Unauthorised):
        await access.submitter(shown(token=HUB, signature="nonsense"))


async def test_a_home_reads_what_is_its_own(access: Access) -> None:
    seen = await access.reader(signed(), None)
    seen.require(f"contributor:{FEDERATION}/home-1")
    seen.require(f"held:{FEDERATION}/home-1")
    for account in (
        f"contributor:{FEDERATION}/home-2",
        f"consumer:{FEDERATION}/home-1",
        "contributor:other/home-1",
        "fee:x",
    ):
        with pytest.raises(Forbidden):
            seen.require(account)
    with pytest.raises(Forbidden, match="list of submitters"):
        await access.submitter(signed())
    with pytest.raises(Unauthorised):
        await access.reader(signed(seed=12), None)


async def test_a_consumer_reads_the_namespace_that_the_cluster_lets_them_read(access: Access, cluster: Cluster) -> None:
    seen = await access.reader(shown(token=ALICE), "lab")
    assert cluster.asked == [("alice", (), STATEMENTS | {"namespace": "lab"})]
    seen.require(f"consumer:{FEDERATION}/ns-1")
    for account in (f"consumer:{FEDERATION}/ns-2", f"contributor:{FEDERATION}/ns-1", f"consumer:{FEDERATION}/lab"):
        with pytest.raises(Forbidden):
            seen.require(account)
    with pytest.raises(Forbidden):
        await access.reader(shown(token=ALICE), "other")


async def test_a_namespace_that_is_made_anew_is_another_account(access: Access, cluster: Cluster) -> None:
    cluster.namespaces["lab"] = {"metadata": {"uid": "ns-9"}}
    seen = await access.reader(shown(token=ALICE), "lab")
    with pytest.raises(Forbidden):
        seen.require(f"consumer:{FEDERATION}/ns-1")


async def test_who_has_no_right_does_not_learn_which_namespaces_there_are(access: Access, cluster: Cluster) -> None:
    said = []
    changes: list[dict[str, Any]] = [{"allowed": False}, {"namespaces": {}}]
    for change in changes:
        fresh = Cluster()
        vars(fresh).update(change)
        with pytest.raises(Forbidden) as caught:
            await NamespaceReviews(fresh).namespace_uid(User("alice"), "lab")  # type: ignore[arg-type]
        said.append(caught.value.message)
    assert said[0] == said[1]


async def test_outside_of_kubernetes_there_are_no_consumers(access: Access) -> None:
    alone = Access(
        FEDERATION, access.submitters, access.certificate_names, access.authenticator, access.signatures, None
    )
    with pytest.raises(Forbidden):
        await alone.reader(shown(token=ALICE), "lab")


@pytest.mark.parametrize("own", [Forbidden("subjectaccessreviews: no right"), Unauthorised("our own token expired")])
async def test_what_the_ledger_itself_is_refused_is_not_held_against_the_consumer(
    access: Access, cluster: Cluster, own: HomefedError
) -> None:
    cluster.error = own
    with pytest.raises(Transient, match=own.message):
        await access.reader(shown(token=ALICE), "lab")


async def test_a_review_is_remembered_for_a_short_time_and_bounded(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    reviews = NamespaceReviews(cluster, lambda: now[0])  # type: ignore[arg-type]
    for _ in range(3):
        assert await reviews.namespace_uid(User("alice"), "lab") == "ns-1"
    assert len(cluster.asked) == 1
    now[0] += rules.REMEMBERED_SECONDS
    cluster.allowed = False
    with pytest.raises(Forbidden):
        await reviews.namespace_uid(User("alice"), "lab")
    monkeypatch.setattr(rules, "_REMEMBERED", 2)
    cluster.allowed = True
    for number in range(5):
        await reviews.namespace_uid(User("alice", (f"group-{number}",)), "lab")
    assert len(reviews._seen) == 2


def test_our_own_header_counts_before_the_one_that_proxies_strip() -> None:
    assert bearer_token({}) is None
    assert bearer_token({"Authorization": "bearer abc"}) == "abc"
    assert bearer_token({"Authorization": "Bearer abc", "X-HomeFed-Authorization": "Bearer def"}) == "def"
    for wrong in ("abc", "Basic abc", "Bearer", "Bearer  "):
        with pytest.raises(Unauthorised, match="Bearer TOKEN"):
            bearer_token({"Authorization": wrong})


def test_a_certificate_says_one_name_or_none() -> None:
    assert common_name(None) is None
    assert common_name(certificate("a")) == "a"
    assert common_name(certificate("a", "b")) is None
