"""The API server's audit log as data: who did what to which object, and whether it was allowed.

Tests count writes at rest with it, and compare the rights that a chart grants with those that were used.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*"]},
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "Metadata"},
    ],
}
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class AuditEvent:
    """One answered request. `resource` carries the subresource after a slash; `namespace` and `name` may be empty."""

    user: str
    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    status: int
    stage: str
    at: str  # RFC 3339, when the request came in
    path: str

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES

    @property
    def denied(self) -> bool:
        return self.status == 403


def read_audit(path: Path, offset: int = 0) -> Iterator[AuditEvent]:
    """The events from a byte offset on (the file's size of an earlier moment, when a line may have been half-written:
    it is left out, as is one that is half-written now)."""
    with path.open("rb") as file:
        if offset:
            file.seek(offset - 1)
            file.readline()  # the end of the line before, or the rest of the one that was half-written
        for line in file:
            if line.endswith(b"\n"):
                yield _parse(json.loads(line))


def _parse(event: dict[str, Any]) -> AuditEvent:
    target = event.get("objectRef", {})
    resource = target.get("resource", "")
    if subresource := target.get("subresource"):
        resource = f"{resource}/{subresource}"
    return AuditEvent(
        user=event.get("user", {}).get("username", ""),
        verb=event["verb"],
        group=target.get("apiGroup", ""),
        resource=resource,
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        status=event.get("responseStatus", {}).get("code", 0),
        stage=event["stage"],
        at=event["requestReceivedTimestamp"],
        path=event["requestURI"],
    )
