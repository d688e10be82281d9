"""What the client sends, and what it makes of each answer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts.kube.scripted import ScriptedServer, answered, cut, pod, pod_list, slow, status
from homefed.api.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    HomefedError,
    Invalid,
    NotFound,
    Refused,
    Transient,
    Unauthorised,
)
from homefed.kube import transport
from homefed.kube.client import KubeClient
from homefed.kube.resources import GUESTPODS, LEASES, NODES, PODS


async def test_get_asks_for_the_object_with_the_token_and_returns_it(
    server: ScriptedServer, client: KubeClient
) -> None:
    server.answers(answered(pod("a", 7)))
    assert await client.get(PODS, "a", "default") == pod("a", 7)
    request = server.requests[0]
    assert (request.method, request.path) == ("GET", "/api/v1/namespaces/default/pods/a")
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["User-Agent"].startswith("homefed/")


async def test_a_renewed_token_is_used_from_the_next_request_on(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(answered({}), answered({}))
    await client.request("GET", "/version")
    client.use_token("renewed")
    await client.request("GET", "/version")
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer secret", "Bearer renewed"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(400, "BadRequest"), Invalid),
        (status(401, "Unauthorized"), Unauthorised),
        (status(403, "Forbidden"), Forbidden),
        (status(404, "NotFound", name="a"), NotFound),
        (status(409, "Conflict"), Conflict),
        (status(409, "AlreadyExists"), AlreadyExists),
        (status(410, "Expired"), Gone),
        (status(413, "RequestEntityTooLarge"), Refused),
        (status(422, "Invalid"), Invalid),
        (status(429, "TooManyRequests"), Transient),
        (status(500, "InternalError"), Transient),
        (status(503, "ServiceUnavailable"), Transient),
        (answered("<html>bad gateway</html>", 502), Transient),
        (answered("<html>no</html>", 403), Forbidden),
        (answered("{broken", 200), Transient),
        (answered("[]", 200), Transient),
        (answered("[" * 100_000, 200), Transient),
        (cut(), Transient),
        (slow(60), Transient),
    ],
)
async def test_every_failure_becomes_the_error_that_says_what_to_do(
    server: ScriptedServer, client: KubeClient, answer: object, error: type[HomefedError]
) -> None:
    server.answers(answer)  # type: ignore[arg-type]
    with pytest.raises(error) as caught:
        await client.get(PODS, "a", "default")
    assert type(caught.value) is error
    assert "/api/v1/namespaces/default/pods/a" in caught.value.message


async def test_the_servers_message_is_kept_and_bounded(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(status(422, "Invalid", "spec.poolName: Required value"), status(422, "Invalid", "x" * 100_000))
    with pytest.raises(Invalid, match=r"spec\.poolName: Required value"):
        await client.create(PODS, pod("a", 1))
    with pytest.raises(Invalid) as caught:
        await client.create(PODS, pod("a", 1))
    assert len(caught.value.message) == 1024


async def test_a_404_without_an_object_is_no_evidence_that_the_object_is_gone(
    server: ScriptedServer, client: KubeClient
) -> None:
    server.answers(answered("404 page not found\n", 404), answered("404 page not found\n", 404))
    with pytest.raises(Transient) as caught:
        await client.get(GUESTPODS, "a", "default")
    assert caught.value.reason == "KindNotServed"
    with pytest.raises(Transient):
        await client.delete(GUESTPODS, "a", "default")


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None)])
async def test_retry_after_is_handed_on(
    server: ScriptedServer, client: KubeClient, text: str, seconds: float | None
) -> None:
    server.answers(status(429, "TooManyRequests", Retry_After=text))
    with pytest.raises(Transient) as caught:
        await client.get(PODS, "a", "default")
    assert caught.value.retry_after == seconds


async def test_an_unreachable_server_is_transient() -> None:
    async with KubeClient.from_token("http://127.0.0.1:1", None, "secret") as client:
        with pytest.raises(Transient) as caught:
            await client.get(NODES, "a")
    assert caught.value.reason == "Unreachable"


async def test_a_proxy_of_the_environment_is_used_unless_it_says_otherwise(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    server.answers(answered({}))
    async with KubeClient.from_token("http://localhost:1", None, "secret") as client:
        await client.request("GET", "/version")
    assert server.requests[0].path == "http://localhost:1/version"
    monkeypatch.setenv("no_proxy", "localhost")
    async with KubeClient.from_token("http://localhost:1", None, "secret") as client:
        with pytest.raises(Transient):
            await client.request("GET", "/version")
    assert len(server.requests) == 1


async def test_a_netrc_does_not_touch_our_credentials(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.answers(answered({}))
    async with KubeClient.from_token(server.url, None, "secret") as client:
        await client.request("GET", "/version")
    assert server.requests[0].headers["Authorization"] == "Bearer secret"


async def test_a_redirect_is_refused_and_not_followed(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(answered("", 302, Location="/elsewhere"), answered(pod("a", 1)))
    with pytest.raises(Refused) as caught:
        await client.get(PODS, "a", "default")
    assert caught.value.reason == "Redirected"
    assert len(server.requests) == 1


async def test_an_oversized_answer_is_refused(
    server: ScriptedServer, client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1000)
    server.answers(answered({"pad": "x" * 2000}))
    with pytest.raises(Refused) as caught:
        await client.get(PODS, "a", "default")
    assert caught.value.reason == "AnswerTooLarge"


async def test_a_list_is_all_pages(server: ScriptedServer, client: KubeClient) -> None:
    first = {"metadata": {"name": "a", "namespace": "default", "resourceVersion": "1"}}
    server.answers(pod_list(9, first, **{"continue": "more"}), pod_list(9, pod("b", 2)))
    listed = await client.list(PODS, "default", label_selector="app=x", field_selector="spec.nodeName=n")
    assert [item["metadata"]["name"] for item in listed.items] == ["a", "b"]
    assert listed.items[0]["kind"] == "Pod"
    assert listed.resource_version == "9"
    common = {"limit": "500", "labelSelector": "app=x", "fieldSelector": "spec.nodeName=n"}
    assert [request.query for request in server.requests] == [common, common | {"continue": "more"}]


@pytest.mark.parametrize(
    ("second_page", "error"),
    [
        (status(500, "InternalError"), Transient),
        (status(410, "Expired"), Gone),
        (cut(), Transient),
        (answered({"kind": "PodList", "items": []}), Transient),
        (answered({"metadata": {"resourceVersion": "9"}, "items": None}), Transient),
        (answered({"metadata": {"resourceVersion": "9"}, "items": ["x"]}), Transient),
    ],
)
async def test_a_list_with_a_missing_page_is_no_list(
    server: ScriptedServer, client: KubeClient, second_page: object, error: type[HomefedError]
) -> None:
    server.answers(pod_list(9, pod("a", 1), **{"continue": "more"}), second_page)  # type: ignore[arg-type]
    with pytest.raises(error):
        await client.list(PODS, "default")


async def test_apply_names_its_manager_and_sends_only_what_was_given(
    server: ScriptedServer, client: KubeClient
) -> None:
    server.answers(answered(pod("a", 1)), answered(pod("a", 1)))
    await client.apply(PODS, {"metadata": {"name": "a", "namespace": "b"}}, field_manager="homefed-hub")
    await client.apply(
        GUESTPODS,
        {"metadata": {"name": "a", "namespace": "b"}, "status": {}},
        field_manager="homefed-agent",
        force=True,
        subresource="status",
    )
    first, second = server.requests
    assert (first.method, first.headers["Content-Type"]) == ("PATCH", "application/apply-patch+yaml")
    assert first.query == {"fieldManager": "homefed-hub", "force": "false"}
    assert first.body == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}}
    assert second.path == "/apis/homefed.io/v1alpha1/namespaces/b/guestpods/a/status"
    assert second.query["force"] == "true"


async def test_patches_say_which_kind_they_are(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(answered({}), answered({}))
    await client.patch(NODES, "n", {"spec": {"unschedulable": True}})
    operations = [{"op": "remove", "path": "/metadata/finalizers/0"}]
    await client.patch(NODES, "n", operations, kind_of_patch="json", subresource="status")
    assert [r.headers["Content-Type"] for r in server.requests] == [
        "application/merge-patch+json",
        "application/json-patch+json",
    ]
    assert server.requests[1].body == operations
    assert server.requests[1].path == "/api/v1/nodes/n/status"


async def test_delete_carries_its_preconditions_and_says_whether_there_was_anything(
    server: ScriptedServer, client: KubeClient
) -> None:
    gone, another = status(404, "NotFound", name="a"), status(409, "Conflict")
    server.answers(answered({"kind": "Status", "status": "Success"}), gone, another)
    assert await client.delete(PODS, "a", "b", uid="u", resource_version="3", grace_seconds=0, propagation="Background")
    assert server.requests[0].body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u", "resourceVersion": "3"},
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Background",
    }
    assert await client.delete(PODS, "a", "b") is False
    with pytest.raises(Conflict):
        await client.delete(PODS, "a", "b", uid="another")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../secrets/x"])
async def test_a_name_that_would_change_the_path_is_never_sent(
    server: ScriptedServer, client: KubeClient, name: str
) -> None:
    with pytest.raises(Invalid):
        await client.get(PODS, name, "default")
    with pytest.raises(Invalid):
        await client.get(PODS, "a", name)
    assert server.requests == []


async def test_odd_characters_of_a_name_stay_in_the_name(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(answered({}))
    await client.get(NODES, "a?b=c#d%2e é")
    assert server.requests[0].path == "/api/v1/nodes/a%3Fb=c%23d%252e%20%C3%A9"
    assert server.requests[0].query == {}


async def test_what_lacks_a_name_or_a_namespace_is_refused_before_it_is_sent(client: KubeClient) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await client.update(PODS, {"metadata": {"namespace": "a"}})
    with pytest.raises(Invalid, match="namespace is missing"):
        await client.get(LEASES, "a")
    with pytest.raises(Invalid, match=r"metadata\.namespace"):
        await client.create(PODS, {"metadata": {"name": "a"}})
    with pytest.raises(Invalid, match="has no namespace"):
        await client.get(NODES, "a", "default")


async def test_every_answers_date_is_handed_on_also_a_failures(server: ScriptedServer) -> None:
    dates: list[datetime] = []
    server.answers(
        answered({}, Date="Wed, 21 Oct 2015 07:28:00 GMT"),
        status(500, "InternalError", Date="Wed, 21 Oct 2015 07:28:01 GMT"),
        answered({}, Date="yesterday"),
    )
    async with KubeClient.from_token(server.url, None, "secret", on_date=dates.append) as client:
        await client.request("GET", "/version")
        with pytest.raises(Transient):
            await client.request("GET", "/version")
        await client.request("GET", "/version")
    assert dates == [datetime(2015, 10, 21, 7, 28, second, tzinfo=UTC) for second in (0, 1)]


async def test_a_token_is_issued_and_not_shown_by_accident(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(answered({"status": {"token": "abc", "expirationTimestamp": "2026-01-01T00:00:00Z"}}), answered({}))
    issued = await client.token("homefed-agent", "homefed-home-x", audiences=["ledger"], seconds=600)
    assert (issued.token, issued.expires_at) == ("abc", datetime(2026, 1, 1, tzinfo=UTC))
    assert "abc" not in repr(issued)
    assert server.requests[0].body["spec"] == {"audiences": ["ledger"], "expirationSeconds": 600}
    with pytest.raises(Transient):
        await client.token("homefed-agent", "homefed-home-x")


@pytest.mark.parametrize("allowed", [True, False, None, "true"])
async def test_only_a_plain_true_allows(server: ScriptedServer, client: KubeClient, allowed: object) -> None:
    server.answers(answered({"status": {"allowed": allowed}}))
    assert await client.review_access("alice", ["g"], {"verb": "get", "resource": "pods"}) is (allowed is True)
    assert server.requests[0].body["spec"]["resourceAttributes"] == {"verb": "get", "resource": "pods"}


async def test_a_review_without_status_is_transient(server: ScriptedServer, client: KubeClient) -> None:
    server.answers(answered({"status": {"authenticated": False}}), answered({"kind": "TokenReview"}))
    assert await client.review_token("t", audiences=["ledger"]) == {"authenticated": False}
    with pytest.raises(Transient):
        await client.review_token("t")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "clusters: 7", "apiVersion: v1\nclusters: []\nusers: []\ncontexts: []\ncurrent-context: x\n"],
)
async def test_a_malformed_kubeconfig_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(Invalid, match="kubeconfig"):
        await KubeClient.from_kubeconfig(path).__aenter__()


async def test_a_missing_kubeconfig_says_so(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no such file"):
        await KubeClient.from_kubeconfig(tmp_path / "none").__aenter__()


async def test_a_malformed_kubeconfigs_token_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "current-context: c\nclusters: [{name: k, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "users: [{name: u, user: {token: hunter2, auth-provider: {name: gcp}, exec: 7}}]\n"
        "contexts: [{name: c, context: {user: u, cluster: nowhere}}]\n"
    )
    with pytest.raises(Invalid) as caught:
        await KubeClient.from_kubeconfig(path).__aenter__()
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize(
    "url", ["http://hub.example", "http://127.0.0.1.example", "hub.example:6443", "ftp://127.0.0.1", "https://[", ""]
)
async def test_a_token_is_sent_over_tls_or_loopback_only(url: str) -> None:
    with pytest.raises(Invalid, match="https"):
        await KubeClient.from_token(url, None, "secret").__aenter__()


async def test_a_certificate_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="certificate"):
        await KubeClient.from_token("https://127.0.0.1:1", "not a PEM", "secret").__aenter__()


async def test_outside_a_pod_there_are_no_pod_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Refused, match="pod"):
        await KubeClient.from_incluster().__aenter__()
