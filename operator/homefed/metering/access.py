"""How a home's Prometheus is reached: its address, and credentials that lie in files.

The chart mounts a Secret as a folder; what is in it decides:

    token               a bearer token
    username, password  basic authentication
    tls.crt, tls.key    a client certificate (mTLS)
    ca.crt              the authority of the server's certificate, instead of the system's

Tokens and passwords are read anew for every request, certificates for every connection: a Secret that is rotated needs
no restart.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from homefed.api.errors import Invalid, Refused
from homefed.api.names import GUESTS_NAMESPACE

TOKEN: Final = "token"  # noqa: S105 - a file's name
FILES: Final = {
    "token_file": TOKEN,
    "username_file": "username",
    "password_file": "password",
    "ca_file": "ca.crt",
    "certificate_file": "tls.crt",
    "key_file": "tls.key",
}
"""Field → name of its file in the folder, which is the key in the Secret too."""


@dataclass(frozen=True)
class PrometheusConfig:
    """Raises Invalid where the address is none, or credentials contradict each other."""

    url: str
    """http(s)://host:port, with a path prefix where there is one."""
    token_file: Path | None = None
    username_file: Path | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    """PEM; None: the system's."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    timeout_seconds: float = 30.0
    """Of one request, whole: connecting, evaluation, and the answer's last byte."""
    attempts: int = 3
    """Of one request, where a later one can succeed."""
    namespace: str = GUESTS_NAMESPACE

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Invalid(
                f"Prometheus address {self.url!r}: must start with http:// or https://", reason="InvalidAddress"
            )
        if "@" in parts.netloc:
            raise Invalid(
                "Prometheus address: no user and password in it: give `username` and `password` as keys of the Secret",
                reason="InvalidAddress",
            )
        self._check_pair("username_file", "password_file")
        self._check_pair("certificate_file", "key_file")
        if self.token_file is not None and self.username_file is not None:
            raise Invalid(
                "credentials for Prometheus: `token` or `username` with `password`, not both",
                reason="InvalidCredentials",
            )

    def _check_pair(self, first: str, second: str) -> None:
        there = [name for name in (first, second) if getattr(self, name) is not None]
        if len(there) == 1:
            absent = second if there == [first] else first
            raise Invalid(
                f"credentials for Prometheus: `{FILES[there[0]]}` is there, `{FILES[absent]}` is not",
                reason="InvalidCredentials",
            )

    @classmethod
    def from_folder(
        cls, url: str, folder: Path | None, *, namespace: str = GUESTS_NAMESPACE, timeout_seconds: float = 30.0
    ) -> Self:
        """With the credentials that `folder` has; None: without any."""
        found = {
            field.name: folder / FILES[field.name]
            for field in fields(cls)
            if folder is not None and field.name in FILES and (folder / FILES[field.name]).is_file()
        }
        return cls(url=url, namespace=namespace, timeout_seconds=timeout_seconds, **found)  # type: ignore[arg-type]

    @property
    def credentials(self) -> bool:
        """Whether a secret travels in a header."""
        return self.token_file is not None or self.username_file is not None

    def authorization(self) -> dict[str, str]:
        """The header for the next request. Raises Refused, naming the file that cannot be read."""
        if self.token_file is not None:
            return {"Authorization": f"Bearer {_secret(self.token_file)}"}
        if self.username_file is not None and self.password_file is not None:
            pair = f"{_secret(self.username_file)}:{_secret(self.password_file)}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        return {}


def _secret(path: Path) -> str:
    """A file's content without the line end that editors add."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = "NoToken" if path.name == TOKEN else "NoCredentials"
        raise Refused(f"credentials for Prometheus: {path}: {error}", reason=reason) from error
