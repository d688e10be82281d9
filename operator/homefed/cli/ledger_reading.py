"""Options of commands by which an owner reads his own account at the ledger."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api.errors import Invalid
from homefed.cli.ledger_options import FILE, token_of
from homefed.core import request_signature
from homefed.core.checkpoint import origin_of
from homefed.core.request_signature import Request
from homefed.core.times import from_rfc3339
from homefed.ledger_client.log_reader import LogReader

P = ParamSpec("P")
T = TypeVar("T")


def reading_options(command: Callable[P, T]) -> Callable[P, T]:
    """`--url --ca --token-file --at`."""
    for option in (
        click.option("--at", default="", help="As it stood in this month, at this time (RFC 3339); default: now."),
        click.option("--token-file", type=FILE, default=None, help="Bearer token for audience homefed-ledger."),
        click.option("--ca", type=FILE, default=None, help="Certificate authority of the ledger, PEM."),
        click.option("--url", default=None, envvar="HOMEFED_LEDGER_URL", help="Of the ledger: https://…"),
    ):
        command = option(command)
    return command


def moment(at: str) -> int:
    """Seconds since the epoch."""
    return int((from_rfc3339(at) if at else datetime.now(UTC)).timestamp())


def open_reader(
    url: str, ca: Path | None, token_file: Path | None, key: Ed25519PrivateKey | None = None, federation: str = ""
) -> LogReader:
    """With the token of a file, else with requests that the home's key signs."""
    if token_file is not None:
        return LogReader(url, ca=ca, token=token_of(token_file))
    if key is None:
        raise Invalid(
            "--token-file: the ledger shows lines and statements to their owner only; a token, or a home's own key, is"
            " needed",
            reason="InvalidOption",
        )
    audience, signer = origin_of(federation), key
    return LogReader(
        url,
        ca=ca,
        signature=lambda target: request_signature.sign(Request(audience, "GET", target), signer, datetime.now(UTC)),
    )


async def federation_of(reader: LogReader) -> str:
    """As the first line of the ledger's checkpoint names it."""
    origin = (await reader.checkpoint()).partition("\n")[0]
    federation = origin.removeprefix(origin_of(""))
    if not federation or origin_of(federation) != origin:
        raise Invalid(f"--url: {origin[:80]!r} is no log of HomeFed", reason="InvalidOption")
    return federation


def told(count: int, size: int) -> None:
    """Progress on stderr where that is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\rclaims: {count} of {size}" + ("\n" if count == size else "\x1b[K"))
        sys.stderr.flush()
