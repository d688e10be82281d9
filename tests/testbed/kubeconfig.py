"""Kubeconfig files that carry all they need, so that they can be copied anywhere."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from testbed.pki import Pair


def write_kubeconfig(path: Path, server: str, ca: Path, user: Mapping[str, str], namespace: str = "default") -> Path:
    """Writes a kubeconfig with one context, readable by its owner only; `user` as by `certificate_user`, `token_user`.
    JSON is YAML, so every client reads it."""
    context = {"cluster": "testbed", "user": "testbed", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority-data": _inline(ca)}}],
        "users": [{"name": "testbed", "user": dict(user)}],
        "contexts": [{"name": "testbed", "context": context}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2))
    return path


def certificate_user(pair: Pair) -> dict[str, str]:
    """A user known by a client certificate."""
    return {"client-certificate-data": _inline(pair.cert), "client-key-data": _inline(pair.key)}


def token_user(token: str) -> dict[str, str]:
    """A user known by a bearer token, as ServiceAccounts are."""
    return {"token": token}


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
