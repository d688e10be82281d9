"""The one error tree, grouped by what the caller should do.

    HomefedError
    ├── Transient         wait (`retry_after` seconds, if the other side said) and send the same again
    ├── Stale             read again, decide again
    │   ├── Conflict      the object changed since it was read (409)
    │   └── Gone          the resource version is too old: list again (410)
    ├── NotFound          it is not there (404)
    ├── AlreadyExists     it is there already: adopt it or choose another name (409)
    ├── Refused           repeating will not help: a person has to change something
    │   ├── Invalid       the content is wrong; the message names the field
    │   ├── Forbidden     a right is missing (403)
    │   └── Unauthorised  the credential is not accepted, or has expired (401)
    └── Incident          stop this piece of work and tell a person: evidence contradicts itself

`reason` is CamelCase and stable, for conditions and events; `message` is one sentence for a person.
"""

from __future__ import annotations


class HomefedError(Exception):
    """Root of the tree. Never raised itself."""

    default_reason = "Error"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason


class Transient(HomefedError):
    """A later attempt with the same content can succeed: network, 429, 5xx."""

    default_reason = "Unavailable"

    def __init__(self, message: str, *, reason: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after


class Stale(HomefedError):
    """What was read is no longer so: read again and decide anew."""

    default_reason = "Stale"


class Conflict(Stale):
    default_reason = "Conflict"


class Gone(Stale):
    default_reason = "Expired"


class NotFound(HomefedError):
    default_reason = "NotFound"


class AlreadyExists(HomefedError):
    default_reason = "AlreadyExists"


class Refused(HomefedError):
    """Repeating will not help: a person has to change something, and the message says what."""

    default_reason = "Refused"


class Invalid(Refused):
    default_reason = "Invalid"


class Forbidden(Refused):
    default_reason = "Forbidden"


class Unauthorised(Refused):
    default_reason = "Unauthorised"


class Incident(HomefedError):
    """Evidence contradicts itself (a conflict at the ledger, a wrong receipt): stop, keep everything, tell a person."""

    default_reason = "Incident"
