"""What the testbed writes and reads: command lines, kubeconfigs, the audit log, kwok's stages, folders of runs."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import system
from testbed.audit import read_audit
from testbed.errors import Unavailable
from testbed.flags import APISERVER, CONTROL_PLANE, CONTROLLER_MANAGER, Ports, Spec, command_line, first_service_ip
from testbed.kubeconfig import certificate_user, token_user, write_kubeconfig
from testbed.kwok import STAGES, render_stages
from testbed.pki import Pki
from testbed.workspace import PREFIX, sweep, workspace


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki"), "hub", ["localhost"])


def spec(pki: Pki, **changes: Any) -> Spec:
    facts: dict[str, Any] = {
        "folder": pki.folder,
        "pki": pki,
        "ports": Ports(1, 2, 3, 4, 5),
        "bind_ip": "127.0.0.1",
        "advertise_ip": None,
        "service_cidr": "10.96.0.0/16",
        "pod_cidr": "10.244.0.0/16",
        "allocate_node_cidrs": False,
    }
    return Spec(**(facts | changes))


def test_every_component_has_a_command_line_without_a_flag_twice(pki: Pki) -> None:
    for component in CONTROL_PLANE:
        names = [flag.partition("=")[0] for flag in command_line(component, spec(pki))]
        assert len(names) == len(set(names)), component


def test_own_flags_come_last_and_so_win(pki: Pki) -> None:
    own = {APISERVER: ["--profiling=true"]}
    assert command_line(APISERVER, spec(pki, extra=own))[-1] == "--profiling=true"


def test_pods_reach_the_api_server_only_where_it_has_an_address_of_its_own(pki: Pki) -> None:
    assert "--endpoint-reconciler-type=none" in command_line(APISERVER, spec(pki))
    reachable = command_line(APISERVER, spec(pki, advertise_ip="10.0.0.2"))
    assert {"--endpoint-reconciler-type=lease", "--advertise-address=10.0.0.2"} <= set(reachable)


def test_node_cidrs_are_given_out_only_when_asked_for(pki: Pki) -> None:
    assert "--allocate-node-cidrs=false" in command_line(CONTROLLER_MANAGER, spec(pki))
    allocating = command_line(CONTROLLER_MANAGER, spec(pki, allocate_node_cidrs=True))
    assert {"--allocate-node-cidrs=true", "--cluster-cidr=10.244.0.0/16"} <= set(allocating)


def test_the_kubernetes_service_has_the_first_address() -> None:
    assert first_service_ip("10.96.0.0/16") == "10.96.0.1"


def test_a_kubeconfig_carries_all_it_needs_and_is_private(pki: Pki, tmp_path: Path) -> None:
    users = (certificate_user(pki.pair("admin")), token_user("secret"))
    for number, user in enumerate(users):
        path = write_kubeconfig(tmp_path / str(number), "https://127.0.0.1:1", pki.ca.cert, user, "ns")
        config = yaml.safe_load(path.read_text())
        assert path.stat().st_mode & 0o077 == 0
        assert config["users"][0]["user"] == user
        assert config["contexts"][0]["context"]["namespace"] == "ns"
        assert str(pki.folder) not in path.read_text()


def audit_line(**changes: Any) -> str:
    target = {"resource": "pods", "subresource": "status", "namespace": "ns", "name": "p"}
    event = {
        "verb": "patch",
        "user": {"username": "system:serviceaccount:ns:agent"},
        "objectRef": target,
        "responseStatus": {"code": 403},
        "stage": "ResponseComplete",
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
        "requestURI": "/api/v1/namespaces/ns/pods/p/status",
    }
    return json.dumps(event | changes) + "\n"


def test_the_audit_log_tells_who_wrote_what_and_whether_it_was_allowed(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(audit_line() + audit_line(verb="watch", objectRef={}, responseStatus={"code": 200}))
    write, watch = read_audit(log)
    assert (write.user, write.resource, write.name) == ("system:serviceaccount:ns:agent", "pods/status", "p")
    assert (write.is_write, write.denied) == (True, True)
    assert (watch.is_write, watch.denied, watch.resource) == (False, False, "")


def test_the_audit_log_can_be_read_from_a_moment_on_and_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(audit_line(verb="create"))
    before = log.stat().st_size
    with log.open("a") as file:
        file.write(audit_line(verb="delete") + '{"verb": "half')
    assert [event.verb for event in read_audit(log, before)] == ["delete"]
    assert [event.verb for event in read_audit(log, before - 5)] == ["delete"], "the moment was within a line"


def test_the_simulators_stages_have_no_blank_left_and_manage_nodes_and_pods_only() -> None:
    text = render_stages(STAGES.read_text())
    assert "@" not in text.replace("kwok@", "")
    stages = [document for document in yaml.safe_load_all(text) if document["kind"] == "Stage"]
    assert {stage["spec"]["resourceRef"]["kind"] for stage in stages} == {"Node", "Pod"}


def test_the_folder_of_a_run_vanishes_with_it(tmp_path: Path) -> None:
    with workspace(tmp_path) as folder:
        (folder / "hub").mkdir()
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_run_is_removed_by_the_next_but_not_one_in_use(tmp_path: Path) -> None:
    dead = tmp_path / f"{PREFIX}dead"
    dead.mkdir()
    (dead / ".owner").touch()
    with workspace(tmp_path) as folder:
        assert not dead.exists()
        assert sweep(tmp_path) == []
        assert folder.exists()


def test_a_folder_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEFED_TESTBED_KEEP", "1")
    with workspace(tmp_path) as folder:
        pass
    assert folder.exists()
    assert sweep(tmp_path) == []


class Apt:
    """A stand-in for apt-get: fails the first `failures` installations."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.commands: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(command)
        if command[1] == "install" and self.failures:
            self.failures -= 1
            raise subprocess.CalledProcessError(100, command)


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "missing", lambda packages: ["runc"])


@pytest.mark.usefixtures("lacking")
def test_missing_packages_are_installed_by_root_after_an_update_where_needed() -> None:
    apt = Apt(failures=1)
    assert system.ensure(["runc", "gcc"], root=True, run=apt) == ["runc"]
    assert [command[1] for command in apt.commands] == ["install", "update", "install"]
    assert apt.commands[-1][-1] == "runc"


@pytest.mark.usefixtures("lacking")
def test_without_root_the_message_says_what_to_install() -> None:
    with pytest.raises(Unavailable, match="as root: apt-get install runc"):
        system.ensure(["runc"], root=False, run=Apt(0))


@pytest.mark.usefixtures("lacking")
def test_a_failing_apt_get_is_reported_with_the_remedy() -> None:
    with pytest.raises(Unavailable, match=r"apt-get failed .* by hand, as root: apt-get install runc"):
        system.ensure(["runc"], root=True, run=Apt(2))


def test_where_there_is_no_dpkg_the_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="install runc, gcc your system's way"):
        system.missing(["runc", "gcc"])


def test_an_unknown_package_counts_as_missing_and_a_present_one_does_not() -> None:
    if os.path.exists("/usr/bin/dpkg-query"):
        assert system.missing(["no-such-package-at-all", "dpkg"]) == ["no-such-package-at-all"]
