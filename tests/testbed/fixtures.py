"""The testbed's tiers as pytest fixtures; tests take a namespace each.

    binaries     the programs
    apiserver    etcd and an API server (3 s, 400 MiB): nothing is scheduled or collected
    federation   a hub and two homes, two simulated nodes each, HomeFed's CRDs installed (7 s, 2 GiB)
    namespace    a fresh namespace on `apiserver`
    postgresql   a PostgreSQL server (3 s): tests take a database each

A single server is cheap and lasts as long as its worker; whole federations last as long as the module that uses them.

A tier that cannot run on this machine fails with a message that says what is missing. It never skips: a test that did
not run must not look like one that passed.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.binaries import Binaries
from testbed.cluster import APISERVER_ONLY, Cluster, workspace
from testbed.errors import Unavailable
from testbed.federation import Federation
from testbed.postgres import Postgres, postgres
from testbed.workspace import new_folder

CRDS = Path(__file__).parents[2] / "crds"
TIERS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """The programs; fails when one that the tiers here need is missing."""
    found = Binaries()
    try:
        for program in TIERS:
            found.path(program)
    except Unavailable as error:
        pytest.fail(f"the testbed cannot run: {error}", pytrace=False)
    return found


@pytest.fixture(scope="session")
def testbed_folder() -> Iterator[Path]:
    """Where this worker's clusters live."""
    with workspace() as folder:
        yield folder


@pytest.fixture(scope="session")
def apiserver(binaries: Binaries, testbed_folder: Path) -> Iterator[Cluster]:
    """etcd and an API server, with nothing installed."""
    cluster = Cluster("apiserver", testbed_folder / "apiserver", binaries, components=APISERVER_ONLY)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def federation(binaries: Binaries, testbed_folder: Path) -> Iterator[Federation]:
    """A hub and two homes with two simulated nodes each; HomeFed's CRDs are installed everywhere."""
    with Federation.create(new_folder(testbed_folder, "federation"), binaries, crds=CRDS) as running:
        yield running


@pytest.fixture
def namespace(apiserver: Cluster) -> str:
    """A fresh namespace on `apiserver`. It stays until the run ends: nothing there would finish its deletion."""
    return apiserver.create_namespace(f"test-{next(_numbers)}")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A PostgreSQL server of this run; fails when the programs are missing."""
    try:
        with postgres() as running:
            yield running
    except Unavailable as error:
        pytest.fail(f"the testbed cannot run: {error}", pytrace=False)
