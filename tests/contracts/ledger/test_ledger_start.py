"""The service as it is wired: it starts with what it is told, refuses what cannot work, and lets in by certificate."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from homefed.api.errors import Invalid, Refused
from homefed.ledger.app import run
from homefed.ledger.config import KEY_FILE, Config, Place
from homefed.ledger.sqlite import SqliteStore
from testbed import ports
from testbed.claims import FEDERATION, Chain, SignedClaim
from testbed.ledger import HUB_TOKEN, write_inputs
from testbed.pki import Pki


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    return write_inputs(tmp_path)


@pytest.fixture
def port() -> Iterator[int]:
    (free,) = ports.reserve(1)
    yield free
    ports.release([free])


def config(inputs: tuple[Path, Path], **changes: Any) -> Config:
    keys, tokens = inputs
    given: dict[str, Any] = {
        "store": f"sqlite:{keys.parent / 'ledger.db'}",
        "federation": FEDERATION,
        "hub_keys": (keys,),
        "submitters": frozenset({"hub"}),
        "port": 0,
        "auth": "static",
        "tokens": tokens,
    }
    return Config(**(given | changes))


@asynccontextmanager
async def serving(configured: Config) -> AsyncIterator[None]:
    """Errors: those of `run`, before it serves."""
    ready = asyncio.Event()
    task = asyncio.create_task(run(configured, ready))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        await task
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_ledger_starts_stops_and_starts_again_with_the_same_key(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    keys = []
    for _ in range(2):
        async with serving(config(inputs)):
            keys.append((tmp_path / KEY_FILE).read_bytes())
    assert keys[0] == keys[1]
    with pytest.raises(Refused, match="--federation-id"):
        async with serving(config(inputs, federation="other")):
            pass
    store = await SqliteStore.open(tmp_path / "ledger.db")
    await store.close()


async def test_key_and_mark_lie_in_the_state_directory(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    async with serving(config(inputs, state_directory=tmp_path / "state")):
        pass
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [KEY_FILE, "signed-size"]


async def test_metrics_show_the_newest_checkpoint_and_its_age_from_the_start(
    inputs: tuple[Path, Path], port: int
) -> None:
    claim, url = Chain().make(), f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {HUB_TOKEN}"}
    began = int(time.time())
    async with aiohttp.ClientSession() as session:
        async with serving(config(inputs, port=port)):
            for path, body in (
                (f"/v1/claims/{claim.id}/lines/1", claim.parts[0]),
                (f"/v1/claims/{claim.id}", claim.body),
            ):
                async with session.put(url + path, data=body, headers=headers) as answer:
                    assert answer.status == 201
        async with serving(config(inputs, port=port)):
            async with session.get(f"{url}/metrics") as answer:
                figures = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line[0] != "#")
            async with session.get(f"{url}/readyz") as answer:
                assert answer.status == 200
    assert float(figures["homefed_ledger_signed_size"]) == 1
    assert began <= float(figures["homefed_ledger_checkpoint_timestamp_seconds"]) <= time.time()
    assert float(figures["homefed_ledger_cosigned_size"]) == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tokens": None}, "tokens"),
        ({"tls_certificate": Path("/nonexistent.pem")}, "tls_certificate"),
        ({"client_ca": Path("/nonexistent.pem")}, "client_ca"),
        ({"store": "mysql://db/ledger"}, "store"),
        ({"store": "sqlite:"}, "store"),
        ({"store": "postgresql://hub:secret@db/ledger", "state_directory": Path("/tmp")}, "store"),
    ],
)
async def test_a_configuration_that_cannot_work_is_refused_by_field(
    inputs: tuple[Path, Path], changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid, match=rf"^{field}") as caught:
        async with serving(config(inputs, **changes)):
            pass
    assert "secret" not in str(caught.value)


def test_passwords_come_from_files_and_postgresql_needs_a_state_directory(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss/word\n")
    place = Place("postgresql://hub@db.example:5432/ledger?sslmode=require", None, tmp_path / "password")
    assert place.urls() == ("postgresql://hub:p%40ss%2Fword@db.example:5432/ledger?sslmode=require", None)
    assert place.database is None
    with pytest.raises(Invalid, match="state"):
        _ = place.state
    with pytest.raises(Invalid, match=r"store: .*No such file"):
        Place("postgresql://hub@db/ledger", None, tmp_path / "missing").urls()
    with pytest.raises(Invalid, match="USER@HOST"):
        Place("postgresql://db/ledger", None, tmp_path / "password").urls()
    owned = Place("postgresql://hub@db/ledger", owner="postgresql://owner@db/ledger")
    assert owned.urls() == ("postgresql://hub@db/ledger", "postgresql://owner@db/ledger")


class Clients:
    """Requests over TLS with a client certificate of a CA, or without."""

    def __init__(self, directory: Path, inputs: tuple[Path, Path], port: int) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.server = Pki.create(directory / "server", "server", ["127.0.0.1"])
        self.clients = Pki.create(directory / "clients", "clients", [])
        self.strangers = Pki.create(directory / "strangers", "strangers", [])
        pair = self.server.issue_server("ledger", "ledger", ["127.0.0.1"])
        self.config = config(
            inputs,
            port=port,
            tls_certificate=pair.cert,
            tls_key=pair.key,
            client_ca=self.clients.ca.cert,
            certificate_names=frozenset({"billing.example"}),
        )

    async def submit(self, claim: SignedClaim, pki: Pki | None, name: str, token: str = "") -> int:
        context = ssl.create_default_context(cafile=str(self.server.ca.cert))
        if pki is not None:
            pair = pki.issue_client(name, name)
            context.load_cert_chain(pair.cert, pair.key)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession() as session:
            url = f"{self.url}/v1/claims/{claim.id}/lines/1"
            async with session.put(url, data=claim.parts[0], ssl=context, headers=headers) as answer:
                return answer.status


async def test_a_client_certificate_of_a_listed_name_submits(
    inputs: tuple[Path, Path], tmp_path: Path, port: int
) -> None:
    clients, claim = Clients(tmp_path, inputs, port), Chain().make()
    async with serving(clients.config):
        assert await clients.submit(claim, clients.clients, "billing.example") == 201
        assert await clients.submit(claim, clients.clients, "hub") == 403
        assert await clients.submit(claim, None, "") == 401
        assert await clients.submit(claim, None, "", HUB_TOKEN) == 200
        with pytest.raises(aiohttp.ClientError):
            await clients.submit(claim, clients.strangers, "billing.example")
