"""What the service is told at its start, and where its state lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from homefed.api.errors import Invalid

SQLITE: Final = "sqlite:"
POSTGRESQL: Final = ("postgresql://", "postgres://")
KEY_FILE: Final = "ledger.key"
"""Name of the signing key in the state directory."""


@dataclass(frozen=True)
class Place:
    """Where a ledger keeps its books, and what must survive them."""

    store: str
    """`sqlite:PATH` or `postgresql://USER@HOST/DATABASE`."""
    state_directory: Path | None = None
    """Signing key and high-water mark, outside of the database. None: the directory of the SQLite file."""
    password_file: Path | None = None
    """Of the PostgreSQL role; without it asyncpg looks at PGPASSWORD and PGPASSFILE."""
    owner: str = ""
    """PostgreSQL: URL of the role that owns the tables and migrates them; empty: the same role."""
    owner_password_file: Path | None = None

    @property
    def database(self) -> Path | None:
        """The SQLite file; None on PostgreSQL. Errors: Invalid where `store` is neither."""
        if self.store.startswith(SQLITE):
            path = self.store.removeprefix(SQLITE)
            if not path:
                raise Invalid("store: `sqlite:` is followed by the path of a file")
            return Path(path)
        if not self.store.startswith(POSTGRESQL):
            raise Invalid("store: expected sqlite:PATH or postgresql://USER@HOST/DATABASE")
        return None

    @property
    def state(self) -> Path:
        """Errors: Invalid where nothing says it."""
        if self.state_directory is not None:
            return self.state_directory
        if self.database is None:
            raise Invalid("state: with PostgreSQL a directory for signing key and high-water mark is needed")
        return self.database.parent

    @property
    def key(self) -> Path:
        return self.state / KEY_FILE

    def urls(self) -> tuple[str, str | None]:
        """Of the service's role and of the owner's, with their passwords. Errors: Invalid."""
        owner = _with_password("owner", self.owner, self.owner_password_file) if self.owner else None
        return _with_password("store", self.store, self.password_file), owner


@dataclass(frozen=True)
class Config(Place):
    """Errors in it are refused before anything is served."""

    federation: str = ""
    hub_keys: tuple[Path, ...] = ()
    """Files, or directories of files, each with a raw Ed25519 public key in base64; see `keys` for `revoked`."""
    home_keys: Path | None = None
    """Directory with a public key for each Home's UID."""
    submitters: frozenset[str] = frozenset()
    """Usernames that may submit claims and read lines, e.g. system:serviceaccount:homefed:homefed-hub."""
    certificate_names: frozenset[str] = frozenset()
    """Common names of client certificates that may do the same; needs `client_ca`."""
    host: str = "127.0.0.1"
    port: int = 8080
    auth: Literal["kubernetes", "static"] = "kubernetes"
    tokens: Path | None = None
    """auth static: a file with one `<token> <username>` per line."""
    kubeconfig: Path | None = None
    """auth kubernetes: None is the pod's own ServiceAccount."""
    tls_certificate: Path | None = None
    tls_key: Path | None = field(default=None, repr=False)
    client_ca: Path | None = None
    """PEM: client certificates are accepted from it."""
    lines_retention: int | None = None
    """Seconds after which lines parts are deleted; None: never."""


def _with_password(name: str, url: str, file: Path | None) -> str:
    parts = urlsplit(url)
    if parts.password is not None:
        raise Invalid(f"{name}: a password does not belong on the command line; use a password file or PGPASSFILE")
    if file is None:
        return url
    if not parts.username:
        raise Invalid(f"{name}: a password file needs postgresql://USER@HOST/DATABASE")
    try:
        password = file.read_text().strip("\r\n")
    except OSError as error:
        raise Invalid(f"{name}: {file}: {error.strerror}") from error
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(parts.username, safe='%')}:{quote(password, safe='')}@{host}"))
