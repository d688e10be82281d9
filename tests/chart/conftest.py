"""The chart, installed once for all tests that need an API server with its policies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chart_values import values_of

from testbed.binaries import Binaries
from testbed.cluster import APISERVER_ONLY, Cluster
from testbed.installation import Release


@pytest.fixture(scope="session")
def installed(binaries: Binaries, testbed_folder: Path) -> Iterator[Release]:
    """The whole chart (role both) on a cluster of its own, as its policies hold for everything there.

    Nothing is scheduled; the controller manager type-checks the policies and makes what Deployments ask for."""
    components = {*APISERVER_ONLY, "kube-controller-manager"}
    cluster = Cluster("chart", testbed_folder / "chart", binaries, components=components)
    try:
        yield Release(cluster.start(), values_of("both")).install()
    finally:
        cluster.stop()
