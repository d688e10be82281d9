"""A whole ledger service: in the event loop of the test (`serving`), or as a process (`LedgerProcess`)."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import homefed
from homefed.core.checkpoint import origin_of
from homefed.core.signed_note import VerifierKey
from homefed.ledger.access import Access, ConsumerRights
from homefed.ledger.auth import StaticTokens
from homefed.ledger.config import KEY_FILE
from homefed.ledger.home_keys import HomeKeys
from homefed.ledger.http import Service
from homefed.ledger.intake import Intake
from homefed.ledger.keys import HubKeys, signing_key
from homefed.ledger.log import Log
from homefed.ledger.metrics import Metrics
from homefed.ledger.reading import Here
from homefed.ledger.signatures import HomeSignatures
from homefed.ledger.sqlite import SqliteStore
from homefed.ledger.store import Store
from homefed.ledger.tiles import Tiles
from homefed.ledger.writer import Writer
from testbed import ports
from testbed.claims import FEDERATION, SignedClaim, hub_key, public
from testbed.process import Process

HUB_TOKEN = "hub-token-0123456789"
OTHER_TOKEN = "other-token-0123456789"


@dataclass
class Clock:
    now: int = 1_767_225_600

    def __call__(self) -> int:
        return self.now


@dataclass(frozen=True)
class Ledger:
    url: str
    application: web.Application
    store: Store
    log: Log
    writer: Writer
    intake: Intake
    clock: Clock
    metrics: Metrics
    session: aiohttp.ClientSession
    hub_keys: Path
    home_keys: Path

    @property
    def vkey(self) -> VerifierKey:
        """What receipts and checkpoints verify with."""
        return self.log.vkey

    async def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Headers with underscores for hyphens; none are added."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = io.BytesIO(body) if body is not None else None
        async with self.session.request(method, self.url + path, data=data, headers=named) as response:
            return response.status, await response.read()

    async def put(self, path: str, body: bytes, token: str | None = HUB_TOKEN) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.put(self.url + path, data=body, headers=headers) as response:
            return response.status, await response.read()

    async def get(self, path: str, token: str | None = None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.get(self.url + path, headers=headers) as response:
            return response.status, await response.read()

    async def submit(self, claim: SignedClaim) -> tuple[int, bytes]:
        """Parts, then the header."""
        for number, body in enumerate(claim.parts, 1):
            status, answer = await self.put(f"/v1/claims/{claim.id}/lines/{number}", body)
            assert status in (200, 201), answer
        return await self.put(f"/v1/claims/{claim.id}", claim.body)


def write_inputs(directory: Path) -> tuple[Path, Path]:
    """Directory of hub keys (with `hub_key()` in it), and file of tokens: HUB_TOKEN of user hub, OTHER_TOKEN."""
    keys, tokens = directory / "hub-keys", directory / "tokens"
    keys.mkdir()
    (keys / "hub.pub").write_bytes(base64.b64encode(public(hub_key())))
    tokens.write_text(f"# who may\n{HUB_TOKEN} hub\n\n{OTHER_TOKEN} somebody\n")
    return keys, tokens


def register_home(directory: Path, uid: str, key: Ed25519PrivateKey) -> None:
    """As the hub's ConfigMap is mounted."""
    directory.mkdir(exist_ok=True)
    (directory / uid).write_bytes(base64.b64encode(public(key)))


@asynccontextmanager
async def serving(
    directory: Path, store: Store | None = None, consumers: ConsumerRights | None = None
) -> AsyncIterator[Ledger]:
    """On a free loopback port, with its files in `directory`; user hub may submit. Closes the store."""
    keys, tokens = write_inputs(directory)
    store = store or await SqliteStore.open(directory / "ledger.db")
    clock, metrics, homes = Clock(), Metrics(), HomeKeys(directory / "home-keys", itertools.count(0.0, 60.0).__next__)
    key = signing_key(directory / KEY_FILE, create=True)
    async with store.reading() as reader:
        log = await Log.open(reader, origin_of(FEDERATION), key, directory)
    writer = Writer(store, log, clock=clock, observe=lambda items, _, seconds: metrics.committed(items, seconds))
    intake = Intake(Here(FEDERATION, HubKeys([keys])), store, log, writer)
    signatures = HomeSignatures(homes, log.origin)
    access = Access(FEDERATION, frozenset({"hub"}), frozenset(), StaticTokens(tokens), signatures, consumers)
    service = Service(store, log, intake, access, Tiles(log, store, homes, clock), metrics)
    running = asyncio.create_task(writer.run())
    application = service.application()
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        url = str(server.make_url("")).rstrip("/")
        yield Ledger(
            url, application, store, log, writer, intake, clock, metrics, session, keys, directory / "home-keys"
        )
        writer.stop()
        await running
    log.close()
    await store.close()


class LedgerProcess:
    """The service as a process on a loopback port, with its files in `directory`; user hub may submit."""

    def __init__(
        self, directory: Path, *options: str, store: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        """`options` are further ones of `homefed ledger`, `store` those that stand in place of a file `ledger.db`."""
        keys, tokens = write_inputs(directory)
        (self.port,) = ports.reserve(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = directory / "ledger.db"
        self.argv = [sys.executable, "-m", "homefed", "ledger", "--federation-id", FEDERATION, "--auth", "static"]
        self.argv += [*(store or ("--database", str(self.database)))]
        self.argv += ["--hub-key-dir", str(keys), "--tokens", str(tokens)]
        self.argv += ["--submitter", "hub", "--port", str(self.port), *options]
        self.env = os.environ | {"PYTHONPATH": str(Path(homefed.__file__).parents[1])} | dict(env or {})
        self.process = Process("ledger", self.argv, directory / "ledger.log", env=self.env)

    def start(self) -> None:
        """Returns once requests are answered. Raises ProcessFailed with the log's tail if it ends instead."""
        self.process.start()
        self.process.wait_until(self._answers, 180.0)

    def close(self) -> None:
        self.process.stop()
        ports.release([self.port])

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
