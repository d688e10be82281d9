"""Join values, keys and tokens, good and bad."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from homefed.agent import identity
from homefed.agent.identity import Connection, Rejoin, Token, newest, read_join, token
from homefed.agent.keys import read_keys
from homefed.api.errors import Conflict, Forbidden, Invalid, Transient, Unauthorised
from homefed.api.names import ANNOTATION_ROTATE_KEY as ROTATE
from homefed.core.clock import ClockOffset
from homefed.kube.resources import LEASES, SECRETS
from unit.agent.doubles import Server

NOW = datetime.now(UTC)
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"


def jwt(issued: datetime, expires: datetime, mark: str = "") -> str:
    claims = {"iat": int(issued.timestamp()), "exp": int(expires.timestamp()), "mark": mark}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{body}.signature"


FRESH = jwt(NOW - timedelta(hours=1), NOW + timedelta(days=7), "join")


def a_secret(name: str, **values: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"metadata": {"name": name, "namespace": "homefed"}, "data": data}


def a_join(**changes: str) -> dict[str, Any]:
    values = {"home": "reed", "url": "https://hub.example:6443", "ca": PEM, "token": FRESH} | changes
    return a_secret("homefed-join", **values)


def test_join_values_are_read() -> None:
    join = read_join(a_join())
    assert (join.home, join.url, join.ca) == ("reed", "https://hub.example:6443", PEM)
    assert FRESH not in repr(join), "a token is not for logs"
    assert read_join(a_join(ca="")).ca is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("home", ""),
        ("home", "Reed House"),
        ("home", "a" * 41),
        ("url", ""),
        ("url", "hub.example"),
        ("url", "http://hub.example"),
        ("url", "https://hub example"),
        ("ca", "not a certificate"),
        ("token", ""),
        ("token", "short"),
        ("token", "two words of a token that is none"),
    ],
)
def test_a_wrong_join_value_is_named_with_the_remedy(field: str, value: str) -> None:
    with pytest.raises(Invalid, match=rf"home\.join\.{field} .*homefed invite") as caught:
        read_join(a_join(**{field: value}))
    assert caught.value.reason == "InvalidJoin"


def test_a_value_that_is_not_text_is_named() -> None:
    with pytest.raises(Invalid, match=r"homefed-join\.url"):
        read_join({"metadata": {"name": "homefed-join"}, "data": {"url": "//8="}})


def test_a_damaged_key_is_never_replaced() -> None:
    for data in ({"ed25519": "AAAA"}, {"salt": "AAAA"}, {"ed25519": "?"}):
        with pytest.raises(Invalid, match="restore it from a backup"):
            read_keys({"metadata": {"name": "homefed-agent"}, "data": data})
    assert read_keys({"metadata": {"name": "homefed-agent"}}) is None


def test_the_token_issued_last_is_used_unless_refused_or_expired() -> None:
    old = Token("old", NOW - timedelta(days=2), NOW + timedelta(days=1))
    new = Token("new", NOW - timedelta(days=1), NOW + timedelta(days=1))
    expired = Token("expired", NOW, NOW)
    timeless = Token("timeless", None, None)
    assert newest([old, new, expired, timeless], set(), NOW) == new
    assert newest([old, new], {"new"}, NOW) == old
    assert newest([expired], set(), NOW) is None
    assert newest([timeless, expired], set(), NOW) == timeless


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "a.e30.c", "a.W10.c", "a.eyJpYXQiOiJ4In0.c"])
def test_a_token_of_another_form_states_no_times(text: str) -> None:
    assert token(text) == Token(text, None, None)


def test_a_token_is_renewed_at_two_thirds_of_its_life() -> None:
    assert Token("t", NOW, NOW + timedelta(days=3)).renew_at() == NOW + timedelta(days=2)
    assert Token("t", None, None).renew_at() is None


class Home:
    """A connection with both sides in memory; `seconds` is the monotonic clock."""

    def __init__(self, join: dict[str, Any] | None = None) -> None:
        self.home, self.hub = Server(), Server()
        self.seconds = 0.0
        self.used: list[str] = []
        self.home.put(SECRETS, join or a_join())
        self.home.put(SECRETS, {"metadata": {"name": "homefed-agent", "namespace": "homefed"}})
        self.connection = Connection(self.home, "homefed", "homefed", ClockOffset(), monotonic=lambda: self.seconds)
        self.hub.use_token = self.used.append  # type: ignore[method-assign]

    async def joined(self) -> Connection:
        assert await self.connection._try_load(), self.connection.finding
        self.connection.client = self.hub
        return self.connection

    def own(self, key: str) -> str:
        data = self.home.objects["secrets", "homefed", "homefed-agent"]["data"]
        return base64.b64decode(data[key]).decode()


async def test_key_and_salt_are_made_once_and_kept() -> None:
    world = Home()
    first = (await world.joined()).keys
    again = Connection(world.home, "homefed", "homefed", ClockOffset())
    assert await again._try_load()
    assert first is not None
    assert again.keys is not None
    assert (again.keys.fingerprint, again.keys.salt) == (first.fingerprint, first.salt)
    assert first.fingerprint.startswith("SHA256:")
    assert len(base64.b64decode(first.declared)) == 32
    assert "salt=" not in repr(first), "what stays at home is not for logs"


async def ask_for_a_key(world: Home, value: str = "2026-01-31T10:00:00Z") -> None:
    secret = world.home.objects["secrets", "homefed", "homefed-agent"]
    world.home.put(SECRETS, {**secret, "metadata": {**secret["metadata"], "annotations": {ROTATE: value}}})
    await world.connection._load()


async def test_a_key_is_changed_in_two_writes_each_after_the_hubs_word() -> None:
    world = Home()
    connection = await world.joined()
    old = connection.keys.fingerprint if connection.keys is not None else ""
    changes: list[str] = []
    connection.on_change = lambda: changes.append("woken")
    await ask_for_a_key(world)
    assert changes == ["woken"]

    assert not await connection.rotate("uid-anna", ())
    assert not await connection.rotate("uid-anna", {old})
    assert connection.keys is not None
    new = connection.keys.progress.next_fingerprint or ""
    assert connection.keys.fingerprint == old
    for pinned in ((), {old}, {"SHA256:another"}):
        assert not await connection.rotate("uid-anna", pinned)
    assert await connection.rotate("uid-anna", {new})
    assert not await connection.rotate("uid-anna", {new})
    assert connection.keys.fingerprint == new
    assert [write[0] for write in world.home.writes] == ["patch"] * 3, "the first key, the next one, the exchange"


async def test_an_agent_killed_between_the_steps_goes_on_with_the_same_key() -> None:
    world = Home()
    connection = await world.joined()
    old = connection.keys.fingerprint if connection.keys is not None else ""
    await ask_for_a_key(world)
    await connection.rotate("uid-anna", {old})
    assert connection.keys is not None

    again = Connection(world.home, "homefed", "homefed", ClockOffset())
    assert await again._try_load()
    assert again.keys is not None
    assert (again.keys.progress, again.keys.statement) == (connection.keys.progress, connection.keys.statement)
    assert await again.rotate("uid-anna", {again.keys.progress.next_fingerprint or ""})
    assert not await connection.rotate("uid-anna", {old}), "who was late makes no third key"


async def test_a_secret_that_another_process_has_changed_meanwhile_is_left_alone() -> None:
    world = Home()
    connection = await world.joined()
    old = connection.keys.fingerprint if connection.keys is not None else ""
    await ask_for_a_key(world)
    world.home.trouble["patch"] = Conflict("changed")
    with pytest.raises(Conflict):
        await connection.rotate("uid-anna", {old})
    world.home.trouble.clear()
    await connection.rotate("uid-anna", {old})
    assert connection.keys is not None
    assert connection.keys.progress.next_fingerprint


async def test_a_fingerprint_is_there_even_before_the_join_values_are_right() -> None:
    world = Home(a_join(url="nonsense"))
    assert not await world.connection._try_load()
    assert world.connection.keys is not None
    assert world.connection.finding.reason == "InvalidJoin"


async def test_missing_secrets_say_what_to_install() -> None:
    world = Home()
    world.home.remove(SECRETS, "homefed-agent", "homefed")
    assert not await world.connection._try_load()
    assert world.connection.finding.reason == "NotJoined"
    assert "role home" in world.connection.finding.message


async def test_an_answer_connects_and_tells_when_the_hub_last_worked() -> None:
    world = Home()
    connection = await world.joined()
    await connection._probe()
    assert (connection.finding.status, connection.hub_pass) == ("True", None)
    lease = {"metadata": {"name": "homefed-hub", "namespace": "homefed-home-reed"}}
    world.hub.put(LEASES, {**lease, "spec": {"renewTime": "2026-01-31T10:00:00.000000Z"}})
    await connection._probe()
    assert connection.hub_pass == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert connection.reachable


async def test_a_hub_is_unreachable_after_some_silence_not_at_the_first_miss() -> None:
    world = Home()
    connection = await world.joined()
    await connection._probe()
    world.hub.trouble["get"] = Transient("no answer")
    world.seconds = identity.SILENT_SECONDS - 1
    await connection._probe()
    assert connection.finding.reason == "Connected"
    world.seconds = identity.SILENT_SECONDS
    await connection._probe()
    assert connection.finding.reason == "HubUnreachable"
    assert not connection.reachable


async def test_missing_rights_are_an_answer_of_their_own() -> None:
    world = Home()
    connection = await world.joined()
    world.hub.trouble["get"] = Forbidden("no")
    await connection._probe()
    assert connection.finding.reason == "NotAdmitted"
    assert connection.silent_seconds == 0


@pytest.mark.parametrize(
    ("life", "reason"), [(timedelta(seconds=-1), "TokenExpired"), (timedelta(days=1), "TokenRefused")]
)
async def test_a_refused_token_names_the_remedy_and_keeps_the_key(life: timedelta, reason: str) -> None:
    world = Home(a_join(token=jwt(NOW - timedelta(days=7), NOW + life)))
    connection = await world.joined()
    world.hub.trouble["get"] = Unauthorised("401")
    await connection._probe()
    assert connection.finding.reason == reason
    assert "homefed invite reed --renew" in connection.finding.message
    assert connection.keys is not None


async def test_a_new_invitation_is_used_without_a_restart() -> None:
    world = Home()
    connection = await world.joined()
    world.hub.trouble["get"] = Unauthorised("401")
    await connection._probe()
    renewed = jwt(NOW, NOW + timedelta(days=7), "second")
    world.home.put(SECRETS, a_join(token=renewed))
    await connection._load()
    assert world.used == [renewed]
    del world.hub.trouble["get"]
    await connection._probe()
    assert connection.finding.status == "True"


async def test_an_invitation_to_another_hub_starts_the_process_anew() -> None:
    world = Home()
    connection = await world.joined()
    world.home.put(SECRETS, a_join(url="https://other.example:6443"))
    with pytest.raises(Rejoin, match=r"other\.example"):
        await connection._try_load()


async def test_a_renewed_token_is_stored_before_it_is_used_and_survives_an_upgrade_with_old_values() -> None:
    old = jwt(NOW - timedelta(days=5), NOW + timedelta(days=2))
    renewed = jwt(NOW, NOW + timedelta(days=30), "renewed")
    world = Home(a_join(token=old))
    connection = await world.joined()
    await connection._probe()
    world.hub.issued.append(renewed)
    await connection._renew_if_due()
    assert world.own("token") == renewed
    assert world.own("token-expires") == "2030-01-01T00:00:00Z"
    assert world.used == [renewed]

    after_upgrade = Home(a_join(token=old))
    after_upgrade.home.objects |= {k: v for k, v in world.home.objects.items() if k[2] == "homefed-agent"}
    again = await after_upgrade.joined()
    assert again._token is not None
    assert again._token.text == renewed


async def test_a_fresh_token_is_not_renewed_and_a_failure_is_tried_later() -> None:
    world = Home()
    connection = await world.joined()
    await connection._probe()
    await connection._renew_if_due()
    assert world.hub.issued == []

    aged = Home(a_join(token=jwt(NOW - timedelta(days=6), NOW + timedelta(days=1))))
    connection = await aged.joined()
    await connection._probe()
    aged.hub.trouble["token"] = Transient("busy")
    await connection._renew_if_due()
    del aged.hub.trouble["token"]
    await connection._renew_if_due()
    assert aged.used == [], "not again at once"
    aged.seconds = identity.RENEW_RETRY_SECONDS
    connection._answered = aged.seconds
    aged.hub.issued.append(jwt(NOW, NOW + timedelta(days=30)))
    await connection._renew_if_due()
    assert len(aged.used) == 1
