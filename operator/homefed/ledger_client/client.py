"""The ledger over HTTP, with bounded retries; what it answers is mapped to the error tree.

    async with LedgerClient(url, lambda: token, ca="/etc/homefed/ledger-ca.crt", key=parse_vkey(text)) as ledger:
        submitted = await ledger.submit([Submission(claim_id, [part_bytes], envelope)])

Every method can raise Transient (429, 5xx, a cut connection, after all attempts), Unauthorised and Forbidden. Receipts
are verified before they are given back, and their checkpoints must continue those that were seen before.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeAlias, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from homefed import VERSION
from homefed.api import dsse, ledger_answers
from homefed.api.canonical import parse
from homefed.api.claim_document import MAX_HEADER
from homefed.api.errors import (
    Forbidden,
    HomefedError,
    Incident,
    Invalid,
    NotFound,
    Refused,
    Transient,
    Unauthorised,
)
from homefed.api.ledger_answers import Accepted, StoredLeaf
from homefed.api.meta import Document
from homefed.core import signed_note, tlog_proof
from homefed.core.ledger_reading import payload_digest
from homefed.core.signed_note import VerifierKey
from homefed.core.witness import Head
from homefed.ledger_client import batch
from homefed.ledger_client.batch import Item
from homefed.ledger_client.documents import Chain, Claim, Receipt, Submission, Submitted
from homefed.ledger_client.history import History

MAX_ANSWER: Final = 8 * 2**20
MAX_WAIT: Final = 30.0
_jitter = wait_random_exponential(multiplier=0.2, max=5.0)

M = TypeVar("M", bound=Document)
T = TypeVar("T")
Read: TypeAlias = Callable[[bytes], T]
"""What is made of an answer's content; raises Transient where it is not what it should be."""


class LedgerClient:
    """One ledger. Use as `async with`; safe to share between tasks."""

    def __init__(
        self,
        url: str,
        token_source: Callable[[], str] | None = None,
        ca: str | Path | None = None,
        *,
        key: VerifierKey | None = None,
        attempts: int = 5,
        timeout_seconds: float = 15.0,
    ) -> None:
        """`token_source` is asked before each request that needs one (tokens rotate); None reads public things only.

        `ca` is a PEM file. `key` is the ledger's; without it the first one seen is kept for the life of this client.
        """
        self._url = url.rstrip("/")
        self._token_source = token_source
        self._ca = ca
        self._given_key = self._key = key
        self._history: History | None = None
        self._attempts = attempts
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = await asyncio.to_thread(self._context)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=32),
            timeout=self._timeout,
            headers={"User-Agent": f"homefed/{VERSION}"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def put_part(self, claim_id: str, number: int, document: bytes) -> None:
        """Send one lines part (its canonical bytes, number from 1). Refused when its content is wrong.

        Incident when the claim is accepted already with another part of this number.
        """
        await self._call("PUT", f"/v1/claims/{quote(claim_id, safe='')}/lines/{number}", document, token=True)

    async def put_claim(self, envelope: dsse.Envelope) -> Receipt:
        """Send a signed header whose parts were sent; the verified receipt, the same one however often it is sent.

        Refused (reason and field in the message) when the ledger does not accept it; Incident when the ledger holds
        other bytes under this id (ClaimConflict), its receipt is not of this claim or not signed by its key
        (WrongReceipt), or what it has signed contradicts what it had signed before (LedgerForked, LedgerWentBack).
        """
        claim_id = _claim_id(envelope)
        answer = await self._call("PUT", f"/v1/claims/{claim_id}", envelope.canonical(), token=True)
        return await self._receipt(answer, claim_id, envelope)

    async def submit(self, claims: Sequence[Submission]) -> Submitted:
        """Send claims with their parts, in batches and in order, up to the first one that the ledger does not receipt.

        Nothing is raised: what `put_part` and `put_claim` would raise is the trouble of the claim that it concerns.
        """
        receipts: list[Receipt] = []
        try:
            for items in batch.batches(claims):
                answers = await self._call("POST", "/v1/batch", batch.encode(items), token=True)
                for item, answer in zip(items, _answers(answers, len(items)), strict=True):
                    _check_item(claims[item.claim].claim_id, item, answer)
                    if item.is_header:
                        claim = claims[item.claim]
                        answer.pop("status")
                        receipts.append(await self._receipt(answer, claim.claim_id, claim.envelope))
        except HomefedError as error:
            return Submitted(receipts, error)
        return Submitted(receipts)

    async def claim(self, claim_id: str) -> Claim:
        """A stored claim; NotFound where there is none, Incident when header and receipt do not belong together."""
        answer = _model(StoredLeaf, await self._call("GET", f"/v1/claims/{quote(claim_id, safe='')}"))
        envelope = _envelope(answer.envelope)
        accepted = answer.model_dump(by_alias=True, include=set(Accepted.model_fields))
        return Claim(envelope, await self._receipt(accepted, claim_id, envelope), answer.state)

    async def part(self, claim_id: str, number: int) -> dict[str, Any]:
        """One lines part of a claim; for those who may submit. NotFound where there is none."""
        return await self._call("GET", f"/v1/claims/{quote(claim_id, safe='')}/lines/{number}", token=True)

    async def chain(self, pool: str, account: str, sequence: int | None = None) -> Chain | None:
        """The claim at this place of the chain of a contributor's account in a pool, by default the newest; None where
        there is none."""
        query = None if sequence is None else {"sequence": str(sequence)}
        try:
            answer = await self._call(
                "GET", f"/v1/chains/{quote(pool, safe='')}/{quote(account, safe=':/')}", query=query
            )
        except NotFound:
            return None
        found = _model(ledger_answers.Chain, answer)
        envelope = _envelope(found.envelope)
        if found.digest != payload_digest(envelope):
            raise Incident(
                f"the ledger's chain head {found.claim} does not match its own digest", reason="WrongReceipt"
            )
        return Chain(found.claim, found.sequence, found.digest, int(found.cumulative_paid), envelope)

    async def balance(self, account: str) -> int:
        """µcredit; 0 for an account that nothing was posted to. Negative: owed."""
        answer = await self._call("GET", f"/v1/accounts/{quote(account, safe=':/')}/balance")
        return int(_model(ledger_answers.AccountBalance, answer).balance)

    async def statement(self, account: str, *, before: int | None = None, limit: int = 100) -> ledger_answers.Statement:
        """Sums of the account and its newest entries (at most 1000), older ones with `before`."""
        query = {"limit": str(limit)} | ({"before": str(before)} if before is not None else {})
        path = f"/v1/accounts/{quote(account, safe=':/')}/statement"
        return _model(ledger_answers.Statement, await self._call("GET", path, query=query, token=True))

    async def accounts(
        self, prefix: str = "", *, after: str = "", limit: int = 1000
    ) -> list[ledger_answers.AccountBalance]:
        """Accounts by name from `after` (exclusive), with balances."""
        query = {"prefix": prefix, "after": after, "limit": str(limit)}
        return _model(ledger_answers.Accounts, await self._call("GET", "/v1/accounts", query=query)).accounts

    async def totals(self) -> ledger_answers.Totals:
        return _model(ledger_answers.Totals, await self._call("GET", "/v1/totals"))

    async def ledger_key(self) -> VerifierKey:
        """The key that checkpoints are verified with: the given one, else the ledger's own, from now on."""
        if self._key is None:
            answer = _model(ledger_answers.LedgerKey, await self._call("GET", "/v1/key"))
            try:
                self._key = signed_note.parse_vkey(answer.verifier)
            except Invalid as error:
                raise _malformed(error) from error
        return self._key

    # What the ledger has signed so far.

    async def check(self) -> Head:
        """Look at the newest checkpoint. Incident (LedgerWentBack, LedgerForked, WrongCheckpoint): believe no more."""
        found, _ = await (await self.history()).refresh()
        return Head(found.size, found.root)

    async def confirm(self, receipt: str, envelope: dsse.Envelope) -> None:
        """A receipt that was kept still holds: this key signed it, and the ledger's history contains it."""
        verified = await self._verified(receipt, envelope)
        await (await self.history()).confirm_kept(verified.checkpoint)

    def forget(self) -> None:
        """Believe the next checkpoint, whatever was seen before; and the next key, where none was given."""
        self._history, self._key = None, self._given_key

    async def history(self) -> History:
        if self._history is None:
            self._history = History(await self.ledger_key(), self.fetch)
        return self._history

    async def fetch(self, path: str) -> bytes:
        """A public file of the ledger: its checkpoint, a tile."""
        return await self._retrying("GET", path, None, None, False, bytes)

    async def post_cosignature(self, note: str) -> None:
        """Give the ledger a checkpoint of its own with a witness's cosignature under it.

        Forbidden (UnknownWitness) where it does not know the witness's key, Incident where it denies the checkpoint.
        """
        await self._retrying("POST", "/v1/witness/cosignature", note.encode(), None, False, bytes)

    async def _verified(self, receipt: str, envelope: dsse.Envelope) -> tlog_proof.Verified:
        key = await self.ledger_key()
        try:
            return tlog_proof.verify(receipt, envelope.canonical(), key)
        except Invalid as error:
            raise Incident(f"the ledger's receipt is wrong: {error.message}", reason="WrongReceipt") from error

    async def _receipt(self, answer: Any, claim_id: str, envelope: dsse.Envelope) -> Receipt:
        accepted = _model(Accepted, answer)
        verified = await self._verified(accepted.receipt, envelope)
        if (accepted.id, accepted.leaf_index) != (claim_id, verified.index):
            raise Incident(
                f"claim {claim_id}: the ledger answered for {accepted.id} with leaf {accepted.leaf_index}, and with a"
                f" receipt of leaf {verified.index}",
                reason="WrongReceipt",
            )
        await (await self.history()).confirm(verified.checkpoint)
        return Receipt(claim_id, verified.index, accepted.transaction, accepted.time, accepted.receipt)

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        token: bool = False,
    ) -> dict[str, Any]:
        return await self._retrying(method, path, body, query, token, _object)

    async def _retrying(
        self,
        method: str,
        path: str,
        body: bytes | None,
        query: Mapping[str, str] | None,
        token: bool,
        read: Read[T],
    ) -> T:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=_wait,
            retry=retry_if_exception_type(Transient),
            reraise=True,
        )
        return await retrying(self._once, method, path, body, query, token, read)

    async def _once(
        self,
        method: str,
        path: str,
        body: bytes | None,
        query: Mapping[str, str] | None,
        token: bool,
        read: Read[T],
    ) -> T:
        if self._session is None:
            raise RuntimeError("LedgerClient is used outside of `async with`")
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token and self._token_source is not None:
            headers["Authorization"] = f"Bearer {self._token_source()}"
        url = self._url + path
        try:
            async with self._session.request(
                method, url, data=body, params=query, headers=headers, allow_redirects=False
            ) as response:
                content = await _bounded(response)
                if response.status in (200, 201):
                    return read(content)
                raise _failure(f"{method} {path}", response.status, response.headers.get("Retry-After"), content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"{method} {url}: {type(error).__name__}: {error}") from error

    def _context(self) -> ssl.SSLContext | bool:
        return True if self._ca is None else ssl.create_default_context(cafile=str(self._ca))


def _wait(state: RetryCallState) -> float:
    """Random exponential, and never sooner than the ledger asked for."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, Transient) else None
    return min(MAX_WAIT, max(_jitter(state), asked or 0.0))


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    content = await response.content.read(MAX_ANSWER + 1)
    chunks = [content]
    while content and sum(map(len, chunks)) <= MAX_ANSWER:
        content = await response.content.read(MAX_ANSWER + 1)
        chunks.append(content)
    whole = b"".join(chunks)
    if len(whole) > MAX_ANSWER:
        raise Transient(f"an answer of more than {MAX_ANSWER} bytes", reason="MalformedAnswer")
    return whole


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = parse(content, limit=MAX_ANSWER)
    except Invalid as error:
        raise _malformed(error) from error
    if not isinstance(value, dict):
        raise Transient("the ledger's answer is not an object", reason="MalformedAnswer")
    return value


def _failure(what: str, status: int, retry_after: str | None, content: bytes) -> HomefedError:
    """The error for an answer other than 200 and 201; `content` is an RFC 9457 problem, or anything."""
    try:
        problem = parse(content, limit=MAX_ANSWER)
    except Invalid:
        problem = None
    return _problem(what, status, retry_after, problem)


def _problem(what: str, status: int, retry_after: str | None, problem: Any) -> HomefedError:
    detail, reason = "no explanation given", None
    if isinstance(problem, dict):
        detail, reason = str(problem.get("detail", detail))[:1024], str(problem.get("reason", ""))[:63] or None
    message = f"{what}: {status}: {detail}"
    if status in (408, 429) or status >= 500:
        asked = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
        return Transient(message, reason=reason, retry_after=asked)
    kinds: Mapping[int, type[HomefedError]] = {401: Unauthorised, 403: Forbidden, 404: NotFound, 409: Incident}
    return kinds.get(status, Refused)(message, reason=reason)


def _answers(answer: dict[str, Any], expected: int) -> list[dict[str, Any]]:
    items = answer.get("items")
    if not isinstance(items, list) or len(items) != expected or not all(isinstance(item, dict) for item in items):
        raise Transient(f"the ledger's answer to {expected} items has not as many", reason="MalformedAnswer")
    return items


def _check_item(claim_id: str, item: Item, answer: Mapping[str, Any]) -> None:
    status = answer.get("status")
    if not isinstance(status, int):
        raise Transient("an item of the ledger's answer has no status", reason="MalformedAnswer")
    if status not in (200, 201):
        what = f"claim {claim_id}" + ("" if item.is_header else ", a lines part")
        raise _problem(what, status, None, answer)


def _claim_id(envelope: dsse.Envelope) -> str:
    try:
        return quote(str(parse(envelope.payload, limit=MAX_HEADER)["id"]), safe="")
    except (Invalid, KeyError, TypeError) as error:
        raise Invalid(f"the envelope holds no claim header: {error}") from error


def _envelope(value: Any) -> dsse.Envelope:
    try:
        return dsse.from_json(value)
    except Invalid as error:
        raise _malformed(error) from error


def _model(model: type[M], value: Any) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> Transient:
    return Transient(f"the ledger's answer is not what was expected: {error}", reason="MalformedAnswer")
