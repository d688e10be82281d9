"""The log is read, verified and cosigned by implementations that are not ours, and what is forged they refuse.

`tlog-check` is made of golang.org/x/mod/sumdb, transparency-dev/formats, transparency-dev/tessera and torchwood.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api.canonical import canonical
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note, tlog_proof, witness
from homefed.core.merkle import EMPTY_ROOT
from homefed.core.signed_note import Algorithm, Note, VerifierKey, verifier_key
from homefed.ledger.log import Log
from homefed.ledger.postgres import PostgresStore
from homefed.ledger.store import Store
from testbed.binaries import Binaries
from testbed.claims import Chain
from testbed.ledger import register_home, serving
from testbed.log_server import LogServer, serving_log
from testbed.memory_log import MemoryLog
from testbed.postgres import Postgres

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
HOME_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
HOME = "0c0ffee0-0000-4000-8000-000000000001"
ORIGIN = checkpoints.origin_of("example")
NOW = 1_600_000_000

Check = tuple[int, dict[str, Any], str]
"""Exit status, what it found, why it refused."""


async def check(*words: str | Path) -> Check:
    program = Binaries().path("tlog-check")
    process = await asyncio.create_subprocess_exec(
        program, *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, complaint = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(output) if output else {}, complaint.decode()


async def found(*words: str | Path) -> dict[str, Any]:
    status, result, complaint = await check(*words)
    assert status == 0, complaint
    return result


async def complaint_of(*words: str | Path) -> str:
    status, result, complaint = await check(*words)
    assert (status, result) == (1, {})
    return complaint


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    """The keys of one home."""
    directory = tmp_path / "homes"
    directory.mkdir()
    (directory / HOME).write_bytes(base64.b64encode(HOME_KEY.public_key().public_bytes_raw()))
    return directory


@asynccontextmanager
async def served(state: Path, homes: Path, *batches: int) -> AsyncIterator[LogServer]:
    """A log that has grown by batches of those sizes."""
    store = MemoryLog()
    log = await Log.open(store, ORIGIN, KEY, state)
    try:
        for count in batches:
            first = len(store.leaves)
            store.append(log, [json.dumps({"leaf": first + number}).encode() for number in range(count)])
        async with serving_log(log, store, homes, NOW) as server:
            yield server
    finally:
        log.close()


def heads(server: LogServer) -> list[str]:
    """Every signed size with its root, as tlog-check takes them."""
    signed = [checkpoints.verify(text, server.log.vkey) for text in server.store.checkpoints.values()]
    return [f"{head.size}:{head.root.hex()}" for head in signed]


@pytest.mark.parametrize("batches", [(1,), (255, 1), (256, 1), (3, 500, 9), (65_536, 1), (65_000, 700, 4_300)])
async def test_a_whole_log_is_verified_by_every_implementation(
    tmp_path: Path, homes: Path, batches: tuple[int, ...]
) -> None:
    async with served(tmp_path, homes, *batches) as server:
        result = await found("tree", server.url, server.log.vkey.text(), *heads(server))
        head = server.log.published.checkpoint
        assert result == {"size": sum(batches), "root": head.root.hex(), "entries": sum(batches)}
        assert len({path for path in server.asked if path.startswith("/tile/")}) >= 2


async def test_receipts_are_verified_and_forged_ones_refused(tmp_path: Path, homes: Path) -> None:
    async with served(tmp_path / "state", homes, 3, 500, 9) as server:
        vkey, receipt, entry = server.log.vkey.text(), tmp_path / "receipt", tmp_path / "entry"
        for index, size in ((0, 3), (2, 3), (3, 503), (255, 503), (256, 503), (502, 503), (511, 512)):
            text = await server.log.receipt(server.store, index, size)
            receipt.write_text(text)
            entry.write_bytes(server.store.leaves[index])
            assert await found("receipt", vkey, receipt, entry) == {"index": index}
        other = VerifierKey(ORIGIN, OTHER_KEY.public_key().public_bytes_raw()).text()
        assert "torchwood" in await complaint_of("receipt", other, receipt, entry)
        entry.write_bytes(server.store.leaves[510])
        assert "torchwood" in await complaint_of("receipt", vkey, receipt, entry)
        entry.write_bytes(server.store.leaves[511])
        for forged in forgeries(text):
            receipt.write_text(forged)
            assert "tlog-check: " in await complaint_of("receipt", vkey, receipt, entry)
            with pytest.raises(tlog_proof.Invalid):
                tlog_proof.verify(forged, server.store.leaves[511], server.log.vkey)


def forgeries(receipt: str) -> list[str]:
    """The receipt with one thing changed in each of its parts."""
    lines = receipt.split("\n")
    assert (lines[1], lines[-5]) == ("index 511", "512"), lines
    hashed, root, signature = lines[2], lines[-4], lines[-2]
    return [
        receipt.replace("index 511", "index 510"),
        receipt.replace("\n512\n", "\n513\n"),
        receipt.replace(hashed, flipped(hashed)),
        receipt.replace(f"{hashed}\n", ""),
        receipt.replace(root, flipped(root)),
        receipt.replace(signature, signature[:-8] + flipped(signature[-8:])),
        receipt.replace(f"\n{ORIGIN}\n", "\nhomefed.io/ledger/another\n"),
    ]


def flipped(text: str) -> str:
    """Base64 of the same length with one bit changed."""
    data = bytearray(base64.b64decode(text))
    data[0] ^= 4
    return base64.b64encode(data).decode()


def in_path(beginning: str, change: Callable[[bytes], bytes]) -> Callable[[str, bytes], bytes]:
    return lambda path, body: change(body) if path.startswith(beginning) else body


def flip(place: int) -> Callable[[bytes], bytes]:
    def changed(body: bytes) -> bytes:
        place_in = place % len(body)
        return body[:place_in] + bytes([body[place_in] ^ 1]) + body[place_in + 1 :]

    return changed


FORGED = {
    "the root": in_path("/checkpoint", lambda body: body.replace(body.split(b"\n")[2], b"A" * 43 + b"=")),
    "the size": in_path("/checkpoint", lambda body: body.replace(b"\n600\n", b"\n599\n")),
    "the signature": in_path("/checkpoint", lambda body: body[:-12] + b"AAAAAAAAAAA\n"),
    "a full tile": in_path("/tile/0/000", flip(40)),
    "a partial tile": in_path("/tile/0/002.p/", flip(-1)),
    "a tile of level 1": in_path("/tile/1/000.p/", flip(3)),
    "a short tile": in_path("/tile/0/001", lambda body: body[:-32]),
    "an entry": in_path("/tile/entries/001", flip(30)),
    "the last entry": in_path("/tile/entries/002.p/", flip(-2)),
    "a missing entry": in_path("/tile/entries/002.p/", lambda body: body[: body.rindex(b"{") - 2]),
}


@pytest.mark.parametrize("what", FORGED)
async def test_a_forged_log_is_refused(tmp_path: Path, homes: Path, what: str) -> None:
    async with served(tmp_path, homes, 300, 300) as server:
        vkey = server.log.vkey.text()
        await found("tree", server.url, vkey, *heads(server))
        server.tamper = FORGED[what]
        assert "tlog-check: " in await complaint_of("tree", server.url, vkey, *heads(server))


async def test_a_log_of_another_key_or_with_another_past_is_refused(tmp_path: Path, homes: Path) -> None:
    async with served(tmp_path / "a", homes, 300, 300) as server, served(tmp_path / "b", homes, 9, 291) as older:
        vkey = server.log.vkey.text()
        other = VerifierKey(ORIGIN, OTHER_KEY.public_key().public_bytes_raw()).text()
        assert "x/mod/sumdb/note" in await complaint_of("tree", server.url, other)
        assert "x/mod/sumdb/tlog" in await complaint_of("tree", older.url, vkey, *heads(server)), "it went back"
        rewritten = f"300:{'00' * 32}"
        assert "x/mod/sumdb/tlog" in await complaint_of("tree", server.url, vkey, rewritten)


async def post(url: str, body: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(url, data=body.encode()) as answer:
        return answer.status, await answer.text()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_cosignature_of_torchwood_is_kept_and_served_to_every_implementation(
    tmp_path: Path, homes: Path
) -> None:
    async with served(tmp_path / "state", homes, 5) as server:
        file = tmp_path / "note"
        assert (await get(f"{server.url}/v1/witness/checkpoint"))[0] == 404
        file.write_text((await get(f"{server.url}/checkpoint"))[1])
        name, seed = witness.home_name(HOME), base64.b64encode(HOME_KEY.private_bytes_raw()).decode()
        theirs = await found("cosign", name, seed, file)
        assert theirs["vkey"] == witness.home_key(HOME, HOME_KEY.public_key().public_bytes_raw()).text()
        ahead = await post(f"{server.url}/v1/witness/cosignature", theirs["note"])
        assert ahead[0] == 422, "its clock, this machine's, is ahead of the ledger's"
        ours = signed_note.cosign(server.log.published.checkpoint.text(), name, HOME_KEY, NOW)
        note = Note(server.log.published.checkpoint.text(), (ours,)).encode()
        for _ in range(2):
            assert await post(f"{server.url}/v1/witness/cosignature", note) == (200, f"{name}\n")
        status, cosigned = await get(f"{server.url}/checkpoint")
        assert (status, cosigned) == (200, server.log.published.signed + ours.line())
        assert await get(f"{server.url}/v1/witness/checkpoint") == (200, cosigned)
        file.write_text(cosigned)
        assert await found("cosigned", file, server.log.vkey.text(), theirs["vkey"]) == {"times": [NOW]}
        file.write_text(server.log.published.signed + ours.line().replace(HOME, HOME[:-1] + "2"))
        assert "tlog-check: " in await complaint_of("cosigned", file, server.log.vkey.text(), theirs["vkey"])


async def test_their_cosignature_verifies_here(tmp_path: Path, homes: Path) -> None:
    async with served(tmp_path / "state", homes, 5) as server:
        file = tmp_path / "note"
        file.write_text(server.log.published.signed)
        seed = base64.b64encode(HOME_KEY.private_bytes_raw()).decode()
        theirs = await found("cosign", witness.home_name(HOME), seed, file)
        (cosignature,) = signed_note.parse(theirs["note"]).verify([signed_note.parse_vkey(theirs["vkey"])])
        assert cosignature.time > NOW
        other = witness.home_key(HOME, OTHER_KEY.public_key().public_bytes_raw())
        with pytest.raises(signed_note.Invalid, match="no signature"):
            signed_note.parse(theirs["note"]).verify([other])


async def test_keys_and_notes_are_read_both_ways(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text(checkpoints.Checkpoint(ORIGIN, 7, EMPTY_ROOT, ("an extension",)).text())
    private = signed_note.private_text(ORIGIN, KEY)
    assert await found("vkey", private) == {"name": ORIGIN, "hash": verifier_key(ORIGIN, KEY).key_id.hex()}
    theirs = (await found("sign", private, file))["note"]
    assert theirs == Note(file.read_text(), (signed_note.sign(file.read_text(), ORIGIN, KEY),)).encode()
    assert checkpoints.verify(theirs, verifier_key(ORIGIN, KEY)).extensions == ("an extension",)
    assert signed_note.parse_private(private)[0] == verifier_key(ORIGIN, KEY)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_ledger_of_claims_is_read_by_every_implementation(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    store: Store | None = None
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgresql")
        database = await server.new_database()
        store = await PostgresStore.open(database.service, database.owner)
    async with serving(tmp_path, store) as ledger:
        chains = [Chain(home=f"home-{number}") for number in range(12)]
        claims, olds = [], []
        for _ in range(25):
            batch = [chain.next() for chain in chains]
            for status, answer in await asyncio.gather(*map(ledger.submit, batch)):
                assert status == 201, answer
                claims.append(json.loads(answer))
            head = ledger.log.published.checkpoint
            olds.append(f"{head.size}:{head.root.hex()}")
        vkey = ledger.vkey.text()
        result = await found("tree", ledger.url, vkey, *olds)
        assert (result["size"], result["entries"]) == (300, 300)
        receipt, entry = tmp_path / "receipt", tmp_path / "entry"
        for claim in (claims[0], claims[150], claims[299]):
            stored = json.loads((await ledger.get(f"/v1/claims/{claim['id']}"))[1])
            assert stored["receipt"] == claim["receipt"], "the receipt that was given, from what is stored"
            receipt.write_text(claim["receipt"])
            entry.write_bytes(canonical(stored["envelope"]))
            assert await found("receipt", vkey, receipt, entry) == {"index": claim["leafIndex"]}
        register_home(ledger.home_keys, HOME, HOME_KEY)
        text = ledger.log.published.checkpoint.text()
        cosignature = signed_note.cosign(text, witness.home_name(HOME), HOME_KEY, ledger.clock())
        assert (await post(f"{ledger.url}/v1/witness/cosignature", Note(text, (cosignature,)).encode()))[0] == 200
        receipt.write_bytes((await ledger.get("/checkpoint"))[1])
        cosigner = witness.home_key(HOME, HOME_KEY.public_key().public_bytes_raw()).text()
        assert await found("cosigned", receipt, vkey, cosigner) == {"times": [ledger.clock()]}


class Witness:
    """A witness of the plain protocol around our pure decision."""

    def __init__(self, origin: str, log_key: VerifierKey) -> None:
        self.logs = {origin: [log_key]}
        self.seen: dict[str, witness.Head] = {}
        self.origin = origin
        self.statuses: list[int] = []

    async def add_checkpoint(self, request: web.Request) -> web.Response:
        sign = witness.signer("witness.example/w1", HOME_KEY, NOW)
        answer = witness.add_checkpoint((await request.read()).decode(), self.logs, self.seen, sign)
        if answer.head is not None:
            self.seen[self.origin] = answer.head
        self.statuses.append(answer.status)
        headers = {"Content-Type": answer.content_type}
        return web.Response(status=answer.status, body=answer.body.encode(), headers=headers)


async def test_a_log_of_tesseras_is_witnessed_by_us(tmp_path: Path) -> None:
    origin = "example.com/their-log"
    ours = Witness(origin, verifier_key(origin, OTHER_KEY))
    app = web.Application()
    app.router.add_post("/add-checkpoint", ours.add_checkpoint)
    cosigner = verifier_key("witness.example/w1", HOME_KEY, Algorithm.COSIGNATURE)
    skey = signed_note.private_text(origin, OTHER_KEY)
    async with TestServer(app) as server:
        address = str(server.make_url("")).rstrip("/")
        published = (await found("witnessed", tmp_path / "log", skey, cosigner.text(), address))["published"]
        assert set(ours.statuses) == {200}
        ours.seen.clear()
        published += (await found("witnessed", tmp_path / "log", skey, cosigner.text(), address))["published"]
    assert len(published) == 10
    for text in published:
        note = signed_note.parse(text)
        names = {one.name for one in note.verify([verifier_key(origin, OTHER_KEY), cosigner])}
        assert names == {origin, "witness.example/w1"}
    assert ours.seen[origin].size == 10
    assert set(ours.statuses) == {200, 409}, "a witness that knows nothing says so, and is told again"
