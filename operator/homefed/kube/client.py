"""The verbs of the API server, dicts in and dicts out. The only place in HomeFed that speaks to one.

    async with KubeClient.incluster() as client:
        pods = await client.list(PODS, "default")

Errors are those of `homefed.api.errors`; every method can raise Transient, Forbidden, Unauthorised and Refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

from homefed import VERSION
from homefed.api.errors import HomefedError, Invalid, NotFound, Transient
from homefed.kube import transport
from homefed.kube.failures import failure
from homefed.kube.resources import SERVICEACCOUNTS, Resource
from homefed.kube.transport import Body, Json, OnDate

PAGE: Final = 500
WATCH_SECONDS: Final = 120.0
SILENCE_SECONDS: Final = 15.0
"""A watch that outlives its length by this much is dead. Bookmarks are no sign of life: servers send none while a kind
does not change (with etcd's defaults for 10 minutes)."""

PatchKind = Literal["merge", "json", "strategic"]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
Trim = Callable[[Json], Json]


@dataclass(frozen=True)
class ListResult:
    """A complete list: all pages, and the version from which a watch continues it."""

    items: list[Json]
    resource_version: str


@dataclass(frozen=True)
class IssuedToken:
    token: str = field(repr=False)
    expires_at: datetime


class KubeClient:
    """One API server with one identity. Use as `async with`; safe to share between tasks."""

    def __init__(self, load: transport.Load, *, timeout_seconds: float = 15.0, on_date: OnDate | None = None) -> None:
        """`on_date` is called with the `Date` header of every answer (aware, whole seconds)."""
        agent = f"homefed/{VERSION}"
        self._http = transport.Transport(load, user_agent=agent, timeout_seconds=timeout_seconds, on_date=on_date)

    @classmethod
    def from_kubeconfig(
        cls,
        path: str | Path,
        context: str | None = None,
        *,
        timeout_seconds: float = 15.0,
        on_date: OnDate | None = None,
    ) -> Self:
        """The file is read on entering; Invalid there when it cannot be used."""
        return cls(transport.kubeconfig(path, context), timeout_seconds=timeout_seconds, on_date=on_date)

    @classmethod
    def from_incluster(cls, *, timeout_seconds: float = 15.0, on_date: OnDate | None = None) -> Self:
        """The pod's own ServiceAccount; Refused on entering when there is none."""
        return cls(transport.incluster(), timeout_seconds=timeout_seconds, on_date=on_date)

    @classmethod
    def from_token(
        cls, url: str, ca_pem: str | None, token: str, *, timeout_seconds: float = 15.0, on_date: OnDate | None = None
    ) -> Self:
        """An API server by https address, CA certificate (PEM) and bearer token; see `use_token` for renewal."""
        return cls(transport.bearer(url, ca_pem, token), timeout_seconds=timeout_seconds, on_date=on_date)

    async def __aenter__(self) -> Self:
        await self._http.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    def use_token(self, token: str) -> None:
        """Authenticate with this bearer token from the next request on; running watches keep the old one."""
        self._http.use_token(token)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
        timeout_seconds: float | None = None,
    ) -> Json:
        """Any request that answers with a JSON object."""
        return await self._http.call(method, path, query, body, content_type, timeout_seconds)

    async def get(self, kind: Resource, name: str, namespace: str | None = None) -> Json:
        """The object; NotFound where there is none (never for a kind that is not served: that is Transient)."""
        return await self._http.call("GET", kind.path(namespace, name))

    async def list(
        self,
        kind: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        trim: Trim | None = None,
    ) -> ListResult:
        """All objects, page by page; raises rather than return a part. `namespace` None: of all namespaces.

        `trim` is applied to each object as its page arrives. Gone when the pages outlive the server's memory.
        """
        query = _query(limit=str(PAGE), labelSelector=label_selector, fieldSelector=field_selector)
        path = kind.path(namespace)
        items: list[Json] = []
        while True:
            page = await self._http.call("GET", path, query)
            metadata, found = _page(page, path)
            for item in found:
                item.setdefault("apiVersion", kind.api_version)
                item.setdefault("kind", kind.kind)
                items.append(trim(item) if trim else item)
            if not metadata.get("continue"):
                return ListResult(items, metadata["resourceVersion"])
            query["continue"] = metadata["continue"]

    async def create(self, kind: Resource, obj: Json, namespace: str | None = None) -> Json:
        """AlreadyExists where the name is taken; Invalid where the content is wrong."""
        namespace = namespace if namespace is not None else _namespace(kind, obj)
        if kind.namespaced and namespace is None:
            raise Invalid(f"create {kind.kind}: metadata.namespace is missing")
        return await self._http.call("POST", kind.path(namespace), body=_typed(kind, obj))

    async def apply(
        self, kind: Resource, obj: Json, *, field_manager: str, force: bool = False, subresource: str | None = None
    ) -> Json:
        """Server-side apply: creates the object or takes over exactly the fields given (not with a subresource).

        Conflict where another manager owns a field and `force` is off. metadata.uid, if given, is a precondition:
        Invalid where the object has another, Conflict where it is gone.
        """
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        path = _object_path(kind, obj, subresource)
        return await self._http.call("PATCH", path, query, _typed(kind, obj), "application/apply-patch+yaml")

    async def patch(
        self,
        kind: Resource,
        name: str,
        patch: Body,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        kind_of_patch: PatchKind = "merge",
    ) -> Json:
        """Patch of an existing object; a `json` patch is a list of operations (a failed `test` is Invalid)."""
        content_type = {
            "merge": "application/merge-patch+json",
            "json": "application/json-patch+json",
            "strategic": "application/strategic-merge-patch+json",
        }[kind_of_patch]
        path = kind.path(namespace, name, subresource)
        return await self._http.call("PATCH", path, body=patch, content_type=content_type)

    async def update(self, kind: Resource, obj: Json, *, subresource: str | None = None) -> Json:
        """Replace; Conflict when metadata.resourceVersion is not the newest."""
        return await self._http.call("PUT", _object_path(kind, obj, subresource), body=_typed(kind, obj))

    async def delete(
        self,
        kind: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
    ) -> bool:
        """True when deleted or being deleted, False when there was nothing; Conflict when `uid` is another's."""
        preconditions = _query(uid=uid, resourceVersion=resource_version)
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        body |= {"preconditions": preconditions} if preconditions else {}
        body |= {"gracePeriodSeconds": grace_seconds} if grace_seconds is not None else {}
        body |= {"propagationPolicy": propagation} if propagation else {}
        try:
            await self._http.call("DELETE", kind.path(namespace, name), body=body)
        except NotFound:
            return False
        return True

    async def watch(
        self,
        kind: Resource,
        namespace: str | None,
        resource_version: str,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        server_seconds: float = WATCH_SECONDS,
        idle_seconds: float | None = None,
    ) -> AsyncGenerator[tuple[EventType, Json], None]:
        """Changes after `resource_version`, with bookmarks, until the server ends the watch (then it returns).

        Gone when the version is too old; Transient when the connection breaks, stays silent for `idle_seconds`
        (default: until after its end), or carries nonsense. A bookmark's object has only metadata.resourceVersion.
        """
        query = _query(labelSelector=label_selector, fieldSelector=field_selector, resourceVersion=resource_version)
        query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(max(1, round(server_seconds)))}
        path = kind.path(namespace)
        async with self._http.lines(path, query, idle_seconds or server_seconds + SILENCE_SECONDS) as lines:
            async for line in lines:
                yield _event(transport.json_object(line, f"WATCH {path}"), path)

    async def token(
        self, name: str, namespace: str, *, audiences: Sequence[str] = (), seconds: int = 3600
    ) -> IssuedToken:
        """A token for a ServiceAccount; the server may grant fewer or more seconds than asked for."""
        spec: Json = {"expirationSeconds": seconds} | ({"audiences": [*audiences]} if audiences else {})
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self._http.call("POST", SERVICEACCOUNTS.path(namespace, name, "token"), body=body)
        try:
            status = answer["status"]
            return IssuedToken(str(status["token"]), datetime.fromisoformat(status["expirationTimestamp"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Transient(f"token of {namespace}/{name}: not a TokenRequest", reason="MalformedAnswer") from error

    async def review_token(self, token: str, *, audiences: Sequence[str] = ()) -> Json:
        """TokenReview's status: `authenticated`, `user` {username, uid, groups}, `audiences`, `error`.

        Ask for audiences and then compare `audiences` in the answer: it is empty where the server ignored them.
        """
        spec: Json = {"token": token} | ({"audiences": [*audiences]} if audiences else {})
        return await self._review("authentication.k8s.io", "TokenReview", "tokenreviews", spec)

    async def review_access(self, username: str, groups: Sequence[str], attributes: Mapping[str, str]) -> bool:
        """Whether this user may do what resourceAttributes (verb, group, resource, namespace, name) say."""
        spec = {"user": username, "groups": [*groups], "resourceAttributes": dict(attributes)}
        status = await self._review("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", spec)
        return status.get("allowed") is True

    async def _review(self, group: str, kind: str, plural: str, spec: Json) -> Json:
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        status = (await self._http.call("POST", f"/apis/{group}/v1/{plural}", body=body)).get("status")
        if not isinstance(status, dict):
            raise Transient(f"{kind}: the answer has no status", reason="MalformedAnswer")
        return status


def _query(**parameters: str | None) -> dict[str, str]:
    return {key: value for key, value in parameters.items() if value is not None}


def _page(page: Json, path: str) -> tuple[Json, list[Json]]:
    """metadata and items of one page of a list; Transient where it is not one."""
    metadata, items = page.get("metadata"), page.get("items")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("resourceVersion"), str):
        raise Transient(f"GET {path}: the answer is not a list", reason="MalformedAnswer")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Transient(f"GET {path}: the answer's items are not objects", reason="MalformedAnswer")
    return metadata, items


def _event(event: Json, path: str) -> tuple[EventType, Json]:
    obj, type_ = event.get("object"), event.get("type")
    if not isinstance(obj, dict):
        raise Transient(f"WATCH {path}: an event without object", reason="MalformedAnswer")
    if type_ == "ERROR":
        raise _watch_error(obj, path)
    if type_ not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        raise Transient(f"WATCH {path}: unknown event type {str(type_)[:40]!r}", reason="MalformedAnswer")
    return type_, obj


def _watch_error(status: Json, path: str) -> HomefedError:
    code = status.get("code")
    return failure(code if isinstance(code, int) else 500, status, f"WATCH {path}")


def _namespace(kind: Resource, obj: Json) -> str | None:
    return obj.get("metadata", {}).get("namespace") if kind.namespaced else None


def _object_path(kind: Resource, obj: Json, subresource: str | None) -> str:
    name: Any = obj.get("metadata", {}).get("name")
    if not isinstance(name, str):
        raise Invalid(f"{kind.kind}: metadata.name is missing")
    return kind.path(_namespace(kind, obj), name, subresource)


def _typed(kind: Resource, obj: Json) -> Json:
    """The object with apiVersion and kind, which items of the server's lists lack."""
    return {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
