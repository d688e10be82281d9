"""Copies of the ConfigMaps and Secrets that a pod names: what lies in the mailbox for the home to fetch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from homefed.api import names
from homefed.api.canonical import digest
from homefed.api.guest_pod import Copy
from homefed.core import pod_fields, refusals

Json = dict[str, Any]
TOKEN: Final = "kubernetes.io/service-account-token"  # noqa: S105 - a type's name
PULL_SECRETS: Final = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")
CONTENT: Final = ("data", "binaryData")
CONTENT_DIGEST: Final = "homefed.io/content-digest"


@dataclass(frozen=True)
class Source:
    """What reading one named object in the consumer's namespace gave."""

    copy: Copy
    found: Mapping[str, Any] | None = None
    reason: str = ""
    """Why it could not be read; empty where it was found, or where it is not there."""
    message: str = ""


def problem(source: Source, *, pull_secrets: bool) -> tuple[str, str] | None:
    """(reason, sentence) why a pod that names this object cannot run; None where it can."""
    name, kind = source.copy.name, source.copy.kind
    if source.reason:
        return source.reason, source.message
    if source.found is None:
        return None if source.copy.optional else (refusals.MISSING_OBJECT, f'{kind.lower()} "{name}" not found')
    type_ = source.found.get("type")
    if kind == "Secret" and type_ == TOKEN:
        return refusals.OBJECT_REFUSED, f'secret "{name}" is a token of this cluster and does not leave it'
    if kind == "Secret" and type_ in PULL_SECRETS and not pull_secrets:
        remedy = f"annotate the pod {pod_fields.ANNOTATION_PULL_SECRETS}: Copy to let it go to homes"
        return refusals.OBJECT_REFUSED, f'secret "{name}" is an image pull secret; {remedy}'
    return None


def copy_object(source: Source, mailbox: str, uid: str) -> Json | None:
    """The object to write into the mailbox; None where there is nothing to copy. Only content is copied."""
    if source.found is None:
        return None
    content = {key: source.found[key] for key in CONTENT if source.found.get(key)}
    copied: Json = {
        "apiVersion": "v1",
        "kind": source.copy.kind,
        "metadata": {
            "name": source.copy.copy_name,
            "namespace": mailbox,
            "labels": {names.LABEL_HUB_UID: uid, names.LABEL_MANAGED_BY: names.HUB_MANAGER},
            "annotations": {CONTENT_DIGEST: digest(content)},
        },
        **content,
    }
    if source.copy.kind == "Secret":
        type_ = source.found.get("type")
        copied["type"] = type_ if type_ in PULL_SECRETS else "Opaque"
    return copied


def content_digest(copied: Mapping[str, Any]) -> str:
    """Of a copy as it was written; empty where it carries none."""
    return str((copied["metadata"].get("annotations") or {}).get(CONTENT_DIGEST, ""))


def copies_pull_secrets(pod: Mapping[str, Any]) -> bool:
    return (pod["metadata"].get("annotations") or {}).get(pod_fields.ANNOTATION_PULL_SECRETS) == "Copy"
