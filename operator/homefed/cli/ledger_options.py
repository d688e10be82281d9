"""What commands that look at a ledger from outside are told: its URL, its key, the hubs' keys."""

from __future__ import annotations

import base64
import binascii
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, ParamSpec, TypeVar

import click

from homefed.api.dsse import fingerprint
from homefed.api.errors import Invalid
from homefed.core.audit_leaf import HubKey, LeafRules
from homefed.core.checkpoint import origin_of
from homefed.core.signed_note import VerifierKey, parse_vkey
from homefed.ledger.keys import files_in, read_public_key, revocations
from homefed.ledger_client.log_reader import LogReader

P = ParamSpec("P")
T = TypeVar("T")
FILE: Final = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True)
class Access:
    """A ledger to look at, and the keys by which it is judged."""

    url: str
    key: VerifierKey
    rules: LeafRules
    ca: Path | None = None
    token_file: Path | None = None
    jobs: int | None = None

    def reader(self) -> LogReader:
        token = None if self.token_file is None else token_of(self.token_file)
        return LogReader(self.url, ca=self.ca, token=token)


def ledger_options(command: Callable[P, T]) -> Callable[P, T]:
    """`--url --key --hub-key --ca --token-file --jobs`, which `access` turns into one value."""
    for option in (
        click.option("--jobs", type=click.IntRange(1, 64), default=None, help="Processes; default: one per core."),
        click.option("--token-file", type=FILE, default=None, help="Of one who may read lines."),
        click.option("--ca", type=FILE, default=None, help="Certificate authority of the ledger, PEM."),
        click.option(
            "--hub-key",
            "hub_keys",
            multiple=True,
            required=True,
            help="A hub's public key: base64, a file, or a folder of files with a list `revoked`; repeat.",
        ),
        click.option("--key", required=True, help="The ledger's verifier key (vkey), or a file with it."),
        click.option("--url", required=True, help="Of the ledger: https://…"),
    ):
        command = option(command)
    return command


def access(
    url: str, key: str, hub_keys: tuple[str, ...], ca: Path | None, token_file: Path | None, jobs: int | None
) -> Access:
    """Errors: Invalid, naming the option."""
    verifier = parse_vkey(text_of("--key", key))
    federation = verifier.name.removeprefix(origin_of(""))
    if origin_of(federation) != verifier.name:
        raise Invalid(f"--key: {verifier.name} is not the key of a HomeFed ledger", reason="BadKey")
    return Access(url, verifier, LeafRules(federation, _hub_keys(hub_keys)), ca, token_file, jobs)


def text_of(option: str, value: str) -> str:
    """The value itself, or what is in the file of that name."""
    path = Path(value)
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else value
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{option}: {path}: {error}", reason="Unreadable") from error


def write_whole(path: Path, text: IO[str]) -> None:
    """The file has all of the text, durably, or is as it was."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            shutil.copyfileobj(text, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def progress_bar(what: str) -> Callable[[int, int], None]:
    """Progress on stderr where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        return lambda done, size: None

    def show(done: int, size: int) -> None:
        end = "\n" if done >= size else ""
        sys.stderr.write(f"\r{what}: {done:,} of {size:,} ({100 * done // max(size, 1)} %)\x1b[K{end}")
        sys.stderr.flush()

    return show


def _hub_keys(values: tuple[str, ...]) -> Mapping[str, HubKey]:
    paths = [Path(value) for value in values if Path(value).exists()]
    try:
        raw = [read_public_key(path) for path in files_in(paths)]
        revoked: dict[str, Any] = dict(revocations(paths))
    except OSError as error:
        raise Invalid(f"--hub-key: {error}", reason="Unreadable") from error
    raw += [decoded_key("--hub-key", value) for value in values if not Path(value).exists()]
    if not raw:
        raise Invalid("--hub-key: there is no key in it", reason="BadKey")
    until = {keyid: since for keyid, since in revoked.items() if isinstance(since, int)}
    return {fingerprint(key): HubKey(key, until.get(fingerprint(key))) for key in raw}


def decoded_key(option: str, value: str) -> bytes:
    """A raw Ed25519 public key from its base64. Errors: Invalid, naming the option."""
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"{option}: {value[:80]!r} is neither a path nor base64", reason="BadKey") from error
    if len(raw) != 32:
        raise Invalid(f"{option}: {len(raw)} bytes, a raw Ed25519 public key has 32", reason="BadKey")
    return raw


def token_of(path: Path) -> Callable[[], str]:
    """Read at each request: tokens rotate."""

    def read() -> str:
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Invalid(f"--token-file: {error}", reason="Unreadable") from error

    return read
