"""Each way in over HTTP, and each refusal: who submits, who reads whose lines and statements."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from homefed.api.errors import Forbidden
from homefed.core.request_signature import Request, sign
from homefed.ledger.auth import User
from testbed.claims import FEDERATION, Chain, hub_key
from testbed.ledger import HUB_TOKEN, OTHER_TOKEN, Ledger, register_home, serving

HOME_KEY, STRANGER = hub_key(11), hub_key(12)
AUDIENCE = f"homefed.io/ledger/{FEDERATION}"


class Namespaces:
    """User somebody may read the statements of namespace lab, whose UID is a."""

    async def namespace_uid(self, user: User, namespace: str) -> str:
        if (user.name, namespace) != ("somebody", "lab"):
            raise Forbidden(f"{user.name} may not read {namespace}")
        return "a"


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with serving(tmp_path, consumers=Namespaces()) as running:
        register_home(running.home_keys, "home-1", HOME_KEY)
        yield running


def signed(ledger: Ledger, path: str, key: Any = HOME_KEY, **changes: Any) -> dict[str, str]:
    when = changes.pop("when", datetime.now(UTC))
    request = Request(**({"audience": AUDIENCE, "method": "GET", "target": path} | changes))
    return {"X_HomeFed_Signature": sign(request, key, when)}


async def reason(answer: tuple[int, bytes]) -> tuple[int, str]:
    return answer[0], str(json.loads(answer[1])["reason"])


async def test_only_listed_submitters_submit(ledger: Ledger) -> None:
    claim = Chain().make()
    requests = (
        ("PUT", f"/v1/claims/{claim.id}", claim.body),
        ("PUT", f"/v1/claims/{claim.id}/lines/1", claim.parts[0]),
        ("PUT", f"/v1/resolutions/{claim.id}", claim.body),
        ("PUT", f"/v1/floors/{claim.id}", claim.body),
        ("POST", "/v1/batch", b'{"items": []}'),
    )
    for method, path, body in requests:
        for headers, refused in (
            ({}, (401, "Unauthorised")),
            ({"Authorization": "Bearer a-token-nobody-knows"}, (401, "Unauthorised")),
            ({"Authorization": f"Basic {HUB_TOKEN}"}, (401, "Unauthorised")),
            ({"Authorization": f"Bearer {OTHER_TOKEN}"}, (403, "Forbidden")),
            (signed(ledger, path, method=method), (403, "Forbidden")),
        ):
            assert await reason(await ledger.send(method, path, body, **headers)) == refused
    assert json.loads((await ledger.get("/v1/totals"))[1])["size"] == 0


async def test_a_token_comes_through_proxies_that_strip_authorization(ledger: Ledger) -> None:
    claim = Chain().make()
    path = f"/v1/claims/{claim.id}/lines/1"
    own = {"X_HomeFed_Authorization": f"Bearer {HUB_TOKEN}"}
    assert (await ledger.send("PUT", path, claim.parts[0], **own))[0] == 201
    both = own | {"Authorization": "Bearer what-the-proxy-made-of-it"}
    assert (await ledger.send("PUT", path, claim.parts[0], **both))[0] == 200


async def test_lines_are_read_by_submitters_the_home_and_in_part_by_the_consumer(ledger: Ledger) -> None:
    claim = Chain().next({"a": 5, "b": 7})
    await ledger.submit(claim)
    path = f"/v1/claims/{claim.id}/lines/1"
    assert await ledger.get(path, HUB_TOKEN) == (200, claim.parts[0])
    assert await ledger.send("GET", path, **signed(ledger, path)) == (200, claim.parts[0])
    status, body = await ledger.get(f"{path}?namespace=lab", OTHER_TOKEN)
    own = json.loads(body)
    whole = json.loads(claim.parts[0])
    assert (status, set(own)) == (200, {"claim", "part", "digest", "lines"})
    assert own["digest"] == claim.header["parts"][0]
    assert own["lines"] == [line for line in whole["lines"] if line["consumer"] == "consumer:example/a"]
    assert whole["salt"].encode() not in body


async def test_lines_are_nobody_elses(ledger: Ledger) -> None:
    claim = Chain(home="home-2").next({"a": 5})
    await ledger.submit(claim)
    path = f"/v1/claims/{claim.id}/lines/1"
    assert await reason(await ledger.get(path)) == (401, "Unauthorised")
    assert await reason(await ledger.get(path, OTHER_TOKEN)) == (403, "Forbidden")
    assert await reason(await ledger.get(f"{path}?namespace=other", OTHER_TOKEN)) == (403, "Forbidden")
    assert await reason(await ledger.send("GET", path, **signed(ledger, path))) == (403, "Forbidden")
    unknown = f"/v1/claims/{'0' * 64}/lines/1"
    assert await reason(await ledger.send("GET", unknown, **signed(ledger, unknown))) == (403, "Forbidden")
    assert await reason(await ledger.get(unknown, HUB_TOKEN)) == (404, "NotFound")
    assert await reason(await ledger.get(f"{path}?namespace=../x", OTHER_TOKEN)) == (422, "InvalidQuery")


async def test_a_statement_is_its_owners_and_the_submitters(ledger: Ledger) -> None:
    await ledger.submit(Chain().next({"a": 5}))
    home, held, consumer = "contributor:example/home-1", "held:example/home-1", "consumer:example/a"
    for account in (home, held):
        path = f"/v1/accounts/{account}/statement?limit=5"
        assert (await ledger.send("GET", path, **signed(ledger, path)))[0] == 200
        assert (await ledger.get(path, HUB_TOKEN))[0] == 200
        assert await reason(await ledger.get(path)) == (401, "Unauthorised")
        assert await reason(await ledger.get(f"{path}&namespace=lab", OTHER_TOKEN)) == (403, "Forbidden")
    path = f"/v1/accounts/{consumer}/statement?namespace=lab"
    assert json.loads((await ledger.get(path, OTHER_TOKEN))[1])["due"] == "5"
    assert await reason(await ledger.send("GET", path, **signed(ledger, path))) == (403, "Forbidden")
    other = "/v1/accounts/consumer:example/b/statement?namespace=lab"
    assert await reason(await ledger.get(other, OTHER_TOKEN)) == (403, "Forbidden")


async def test_a_signed_request_is_good_once_for_that_request_and_for_a_short_time(ledger: Ledger) -> None:
    path = "/v1/accounts/contributor:example/home-1/statement?limit=5"
    good = signed(ledger, path)
    assert (await ledger.send("GET", path, **good))[0] == 200
    assert await reason(await ledger.send("GET", path, **good)) == (401, "Replayed")
    wrong: dict[str, dict[str, str]] = {
        "BadSignature": signed(ledger, path.replace("limit=5", "limit=6")),
        "UnknownKey": signed(ledger, path, STRANGER),
        "SignatureExpired": signed(ledger, path, when=datetime.now(UTC) - timedelta(seconds=400)),
        "MalformedSignature": {"X_HomeFed_Signature": "keyid=me"},
    }
    for expected, headers in wrong.items():
        assert await reason(await ledger.send("GET", path, **headers)) == (401, expected)
    assert await reason(await ledger.send("GET", path, **signed(ledger, path, audience="homefed.io/ledger/x"))) == (
        401,
        "BadSignature",
    )


async def test_a_home_that_the_hub_has_dropped_is_no_longer_known(ledger: Ledger) -> None:
    path = "/v1/accounts/contributor:example/home-1/statement"
    assert (await ledger.send("GET", path, **signed(ledger, path)))[0] == 200
    (ledger.home_keys / "home-1").unlink()
    assert await reason(await ledger.send("GET", path, **signed(ledger, path))) == (401, "UnknownKey")


async def test_each_refusal_is_one_line_of_the_log_without_secrets_and_one_count(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    claim = Chain().make()
    with caplog.at_level(logging.INFO, logger="homefed.ledger.http"):
        await ledger.put(f"/v1/claims/{claim.id}", claim.body, OTHER_TOKEN)
        await ledger.put(f"/v1/claims/{claim.id}", b"{}", HUB_TOKEN)
        await ledger.get("/nowhere")
    said = [(vars(record)["status"], vars(record)["reason"]) for record in caplog.records]
    assert said == [(403, "Forbidden"), (422, "NotAnEnvelope"), (404, "NotFound")]
    text = " ".join(str(vars(record)) for record in caplog.records)
    assert HUB_TOKEN not in text
    assert OTHER_TOKEN not in text
    metrics = (await ledger.get("/metrics"))[1].decode()
    assert 'homefed_ledger_refusals_total{reason="Forbidden"} 1.0' in metrics
