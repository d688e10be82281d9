"""Leaving: the home's half of `helm uninstall`. The hub may be unreachable; nothing here asks it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from homefed.api import names
from homefed.api.errors import HomefedError
from homefed.core import contribution as core
from homefed.kube.client import KubeClient
from homefed.kube.resources import CONTRIBUTIONS, PODS
from homefed.kube.transport import Json
from homefed.kube.uninstall import Deadline, strip_finalizer, until_gone

logger = logging.getLogger(__name__)


async def leave_home(kube: KubeClient, namespace: str, deadline: Deadline) -> None:
    """Stop guests with the grace that each of them has, then let go of the Contributions, with a last word in each."""
    for pod in (await kube.list(PODS, names.GUESTS_NAMESPACE)).items:
        metadata = pod["metadata"]
        await kube.delete(PODS, metadata["name"], names.GUESTS_NAMESPACE, uid=metadata["uid"])
        logger.info("stopping guest %s", metadata["name"])

    async def guests() -> int:
        return len((await kube.list(PODS, names.GUESTS_NAMESPACE)).items)

    await until_gone(guests, deadline, "guests")
    for contribution in (await kube.list(CONTRIBUTIONS, namespace)).items:
        told = await _say_so(kube, namespace, contribution)
        await strip_finalizer(kube, CONTRIBUTIONS, told, names.FINALIZER_CONTRIBUTION)


async def _say_so(kube: KubeClient, namespace: str, contribution: Json) -> Json:
    """Who looks at it later reads why nothing happens. Not worth a failed uninstallation."""
    name = contribution["metadata"]["name"]
    status = {"status": core.uninstalled(contribution, datetime.now(UTC))}
    try:
        return await kube.patch(CONTRIBUTIONS, name, status, namespace, subresource="status")
    except HomefedError as error:
        logger.warning("status of contribution %s: %s", name, error.message)
        return contribution
