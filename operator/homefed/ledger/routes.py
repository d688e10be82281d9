"""Every route of the service in one table: what the router serves, and what the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel

from homefed.api import ledger_answers as answers
from homefed.api.claim_document import MAX_PART, MAX_PARTS, LinesPart
from homefed.api.ledger_documents import MAX_LEAF

MAX_BATCH: Final = 8 * 2**20
"""Bytes of a batch's body."""
MAX_LIMIT: Final = 1000
MAX_COSIGNATURE: Final = 16_384

ID: Final = r"[0-9a-f]{64}"
ACCOUNT: Final = r"(contributor|held|consumer|fee|dust):[-A-Za-z0-9.]{1,63}/[-A-Za-z0-9.]{1,64}"
POOL: Final = r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?"
NAMESPACE: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
PREFIX: Final = r"[-A-Za-z0-9.:/]{0,200}"
PART: Final = r"[1-9][0-9]{0,2}"
TILE: Final = r"(x[0-9]{3}/){0,6}[0-9]{3}(\.p/[1-9][0-9]{0,2})?"


@dataclass(frozen=True)
class Parameter:
    """`pattern` is what the text must match, unescaped."""

    name: str
    place: Literal["path", "query"]
    description: str
    pattern: str = ""
    most: int | None = None
    """Of numbers: the largest; None for text."""
    least: int = 0
    required: bool = False


@dataclass(frozen=True)
class Content:
    """A body or an answer: a type, or text and bytes of some media type."""

    model: type[BaseModel] | None
    description: str
    media: str = "application/json"
    limit: int = 0
    """Bytes; of request bodies."""


@dataclass(frozen=True)
class Route:
    method: Literal["GET", "PUT", "POST"]
    path: str
    """As OpenAPI writes it; each {name} is a parameter of the path."""
    operation: str
    """Name of the handler, and operationId."""
    summary: str
    tag: Literal["submit", "read", "log", "service"]
    access: Literal["public", "submitter", "owner"]
    success: Mapping[int, Content]
    parameters: tuple[Parameter, ...] = ()
    body: Content | None = None
    refusals: frozenset[int] = frozenset()
    """Statuses with a problem document, beside those that any request can meet."""

    @property
    def pattern(self) -> str:
        """The path as aiohttp writes it: loosely, as clients may escape what they like; `Exchange` looks closer."""
        text = self.path
        for parameter in self.parameters:
            if parameter.place == "path":
                loose = ".+" if "/" in parameter.pattern else "[^/]+"
                text = text.replace(f"{{{parameter.name}}}", f"{{{parameter.name}:{loose}}}")
        return text


def _id(name: str, what: str) -> Parameter:
    return Parameter(name, "path", f"Id of {what}: 64 hex digits, derived from its key.", ID)


def _json(model: type[BaseModel], description: str) -> Content:
    return Content(model, description)


def _text(description: str) -> Content:
    return Content(None, description, "text/plain")


def _number(name: str, description: str, *, most: int = 2**53 - 1, least: int = 0, required: bool = False) -> Parameter:
    return Parameter(name, "query", description, most=most, least=least, required=required)


_CLAIM: Final = _id("claim", "the claim")
_PART: Final = Parameter("part", "path", f"Number of the part, 1 to {MAX_PARTS}.", PART)
_ACCOUNT: Final = Parameter("account", "path", "TYPE:FEDERATION/ID, e.g. contributor:example/<Home UID>.", ACCOUNT)
_LIMIT: Final = _number("limit", "Items in one answer.", most=MAX_LIMIT, least=1)
_SPACE: Final = Parameter("namespace", "query", "For a consumer: the namespace whose statement this is.", NAMESPACE)
_ENVELOPE: Final = Content(None, "A DSSE envelope with one Ed25519 signature of a hub key.", limit=MAX_LEAF)
_REFUSED: Final = frozenset({409, 413, 422, 429, 503})
_TILE_INDEX: Final = Parameter("tile", "path", "Index as tlog-tiles writes it, e.g. x001/234 or 000.p/17.", TILE)
_BYTES: Final = "application/octet-stream"


def _leaf(kind: str, what: str) -> tuple[Route, Route]:
    """How each kind of leaf is written and read."""
    path, key = f"/v1/{kind}s/{{{kind}}}", (_id(kind, what),)
    new = {
        201: _json(answers.Accepted, "It is durable now."),
        200: _json(answers.Accepted, "The same bytes were here already: the original answer."),
    }
    write = Route("PUT", path, f"put_{kind}", f"Submit {what}.", "submit", "submitter", new, key, _ENVELOPE, _REFUSED)
    found = {200: _json(answers.StoredLeaf, "As it was signed, with its receipt.")}
    return write, Route(
        "GET", path, f"get_{kind}", f"Read {what}.", "read", "public", found, key, None, frozenset({404})
    )


_SUBMIT: Final = (
    *_leaf("claim", "a claim"),
    *_leaf("resolution", "a resolution of a pending claim"),
    *_leaf("floor", "a floor of a consumer's account"),
    Route(
        "PUT",
        "/v1/claims/{claim}/lines/{part}",
        "put_part",
        "Submit a lines part, before the claim that names it.",
        "submit",
        "submitter",
        {
            201: _json(answers.PartAccepted, "It is kept; without its claim for 24 hours."),
            200: _json(answers.PartAccepted, "It was here already."),
        },
        (_CLAIM, _PART),
        Content(LinesPart, "Canonical JSON (RFC 8785).", limit=MAX_PART),
        _REFUSED,
    ),
    Route(
        "POST",
        "/v1/batch",
        "post_batch",
        "Submit up to 256 items in one request; each is answered by itself.",
        "submit",
        "submitter",
        {200: _json(answers.BatchAnswers, "One answer per item, in order.")},
        (),
        Content(answers.Batch, "Taken in this order.", limit=MAX_BATCH),
        frozenset({413, 422, 429, 503}),
    ),
)

_READ: Final = (
    Route(
        "GET",
        "/v1/claims/{claim}/lines/{part}",
        "get_part",
        "Read a lines part: whole for submitters and its home, own lines for a consumer.",
        "read",
        "owner",
        {200: Content(None, "The part's canonical bytes (LinesPart); for consumers ConsumerLines.")},
        (_CLAIM, _PART, _SPACE),
        refusals=frozenset({404, 422}),
    ),
    Route(
        "GET",
        "/v1/accounts",
        "list_accounts",
        "Accounts with balances, by name.",
        "read",
        "public",
        {200: _json(answers.Accounts, "One page.")},
        (
            Parameter("prefix", "query", "Only accounts whose names begin so.", PREFIX),
            Parameter("after", "query", "Only accounts after this one.", PREFIX),
            _LIMIT,
        ),
        refusals=frozenset({422}),
    ),
    Route(
        "GET",
        "/v1/accounts/{account}/balance",
        "get_balance",
        "Balance per unit; 0 where nothing was posted.",
        "read",
        "public",
        {200: _json(answers.AccountBalance, "Its balance.")},
        (_ACCOUNT,),
    ),
    Route(
        "GET",
        "/v1/accounts/{account}/statement",
        "get_statement",
        "Sums of an account, and its entries, newest first.",
        "read",
        "owner",
        {200: _json(answers.Statement, "One page.")},
        (_ACCOUNT, _number("before", "Only transactions below this one.", least=1), _LIMIT, _SPACE),
        refusals=frozenset({422}),
    ),
    Route(
        "GET",
        "/v1/chains/{pool}/{account}",
        "get_chain",
        "The newest claim of a contributor's account in a pool, or the one at a place of that chain.",
        "read",
        "public",
        {200: _json(answers.Chain, "The claim.")},
        (
            Parameter("pool", "path", "The pool's name.", POOL),
            _ACCOUNT,
            _number("sequence", "Place in the chain, from 1.", least=1),
        ),
        refusals=frozenset({404, 422}),
    ),
    Route(
        "GET",
        "/v1/totals",
        "get_totals",
        "Sums over everything, and whether they agree.",
        "read",
        "public",
        {200: _json(answers.Totals, "All sums, of one moment.")},
    ),
)

_LOG: Final = (
    Route(
        "GET",
        "/checkpoint",
        "get_checkpoint",
        "The newest signed tree head, with cosignatures (C2SP tlog-checkpoint).",
        "log",
        "public",
        {200: _text("A signed note.")},
        refusals=frozenset({404}),
    ),
    Route(
        "GET",
        "/tile/{level}/{tile}",
        "get_tile",
        "Hashes of the tree (C2SP tlog-tiles).",
        "log",
        "public",
        {200: Content(None, "Up to 256 hashes of 32 bytes.", _BYTES)},
        (Parameter("level", "path", "0 to 7.", "[0-7]"), _TILE_INDEX),
        refusals=frozenset({404}),
    ),
    Route(
        "GET",
        "/tile/entries/{tile}",
        "get_entries",
        "Leaves of the tree, each behind its length in two bytes (C2SP tlog-tiles).",
        "log",
        "public",
        {200: Content(None, "Up to 256 leaves.", _BYTES)},
        (_TILE_INDEX,),
        refusals=frozenset({404}),
    ),
    Route(
        "GET",
        "/v1/proofs/inclusion",
        "get_inclusion",
        "That a leaf is in the tree of a size.",
        "log",
        "public",
        {200: _json(answers.InclusionProof, "RFC 9162, 2.1.3.")},
        (
            _number("leaf", "Index of the leaf.", required=True),
            _number("size", "Of the tree; default: the newest checkpoint's.", least=1),
        ),
        refusals=frozenset({422}),
    ),
    Route(
        "GET",
        "/v1/proofs/consistency",
        "get_consistency",
        "That the tree of one size is the beginning of a larger one.",
        "log",
        "public",
        {200: _json(answers.ConsistencyProof, "RFC 9162, 2.1.4.")},
        (
            _number("first", "The smaller size.", least=1, required=True),
            _number("second", "The larger size; default: the newest checkpoint's.", least=1),
        ),
        refusals=frozenset({422}),
    ),
    Route(
        "GET",
        "/v1/key",
        "get_key",
        "The key that checkpoints are signed with.",
        "log",
        "public",
        {200: _json(answers.LedgerKey, "To be compared with what the organiser publishes elsewhere.")},
    ),
    Route(
        "GET",
        "/v1/witness/checkpoint",
        "get_cosigned",
        "The newest checkpoint that any home has cosigned.",
        "log",
        "public",
        {200: _text("A signed note.")},
        refusals=frozenset({404}),
    ),
    Route(
        "POST",
        "/v1/witness/cosignature",
        "post_cosignature",
        "A home's cosignature of a checkpoint (C2SP tlog-cosignature).",
        "log",
        "public",
        {200: _text("It is kept.")},
        (),
        Content(None, "The checkpoint with the cosignature.", "text/plain", MAX_COSIGNATURE),
        frozenset({403, 404, 409, 413, 422}),
    ),
)

_SERVICE: Final = (
    Route("GET", "/healthz", "get_health", "The process answers.", "service", "public", {200: _text("ok")}),
    Route(
        "GET",
        "/readyz",
        "get_readiness",
        "Claims can be taken: writer open, store readable, high-water mark not above the store.",
        "service",
        "public",
        {200: _text("ok")},
        refusals=frozenset({503}),
    ),
    Route("GET", "/metrics", "get_metrics", "Prometheus' text format.", "service", "public", {200: _text("Metrics.")}),
    Route(
        "GET",
        "/v1/openapi.json",
        "get_openapi",
        "This document.",
        "service",
        "public",
        {200: Content(None, "OpenAPI 3.1.")},
    ),
)

ROUTES: Final = (*_SUBMIT, *_READ, *_LOG, *_SERVICE)
