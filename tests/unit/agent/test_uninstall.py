"""The home's half of an uninstallation, on a home in memory."""

from typing import Any

from homefed.agent.uninstall import leave_home
from homefed.api import names
from homefed.api.errors import Forbidden
from homefed.kube.resources import CONTRIBUTIONS, PODS
from homefed.kube.uninstall import Deadline
from unit.agent.doubles import Server


def a_home() -> Server:
    home = Server()
    home.put(PODS, {"metadata": {"name": "hf-one", "namespace": names.GUESTS_NAMESPACE}})
    metadata = {"name": "mine", "namespace": "homefed", "finalizers": [names.FINALIZER_CONTRIBUTION, "another"]}
    home.put(CONTRIBUTIONS, {"metadata": metadata, "spec": {"poolName": "garden"}})
    return home


def contribution(home: Server) -> dict[str, Any]:
    return home.objects["contributions", "homefed", "mine"]


async def test_guests_go_first_and_contributions_say_why_nothing_happens_any_more() -> None:
    home = a_home()
    await leave_home(home, "homefed", Deadline(5))
    assert home.writes[0] == ("delete", "pods", "hf-one")
    (ready,) = [c for c in contribution(home)["status"]["conditions"] if c["type"] == "Ready"]
    assert ready["reason"] == "Uninstalled"
    assert contribution(home)["metadata"]["finalizers"] == ["another"]


async def test_a_status_that_cannot_be_written_keeps_no_finalizer() -> None:
    home = a_home()
    refused = Forbidden("not allowed")

    async def patch(kind: Any, name: str, body: Any, namespace: str | None = None, **how: Any) -> Any:
        if how.get("subresource") == "status":
            raise refused
        return await Server.patch(home, kind, name, body, namespace)

    home.patch = patch  # type: ignore[method-assign]
    await leave_home(home, "homefed", Deadline(5))
    assert contribution(home)["metadata"]["finalizers"] == ["another"]
