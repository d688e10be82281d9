"""What an honest hub translates, the home's own gate lets in and the home's rules make a pod of."""

from typing import Any

import pytest

from homefed.api.contribution import ContributionSpec
from homefed.api.guest_pod import GuestPodSpec
from homefed.core.home_admission import Host, refuse
from homefed.core.home_pod import Isolation, build
from homefed.core.pod_translation import guest_pod
from unit.core.guest_builders import IN_BYTES, NOON, a_pod, a_site, container

VOLUMES = [
    {"name": "scratch", "emptyDir": {}},
    {"name": "settings", "configMap": {"name": "settings"}},
    {"name": "password", "secret": {"secretName": "password", "optional": True}},
    {"name": "labels", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
]
ENV = [
    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "password", "key": "w"}}},
    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"volumes": VOLUMES},
        {"containers": [container(env=ENV, envFrom=[{"configMapRef": {"name": "settings"}}])]},
        {"terminationGracePeriodSeconds": 3600},
        {"securityContext": {"runAsUser": 1000, "fsGroup": 1000}},
        {"restartPolicy": "Never", "activeDeadlineSeconds": 60},
    ],
    ids=["plain", "volumes", "env", "long-grace", "user", "job"],
)
def test_what_the_hub_sends_runs_at_home(changes: dict[str, Any]) -> None:
    site = a_site()
    obj, translation = guest_pod(a_pod(metadata={"labels": {"app": "web"}}, **changes), "ns-uid", site, IN_BYTES, NOON)
    guest = GuestPodSpec.model_validate(obj["spec"])
    contribution = ContributionSpec.model_validate({"poolName": site.pool, "egress": site.egress})

    assert refuse(obj["metadata"]["name"], guest, Host(contribution, machine="attic")) is None
    pod = build(guest, "attic", Isolation())
    for made in pod["spec"]["containers"]:
        assert made["resources"]["limits"] == made["resources"]["requests"]
    assert all("sizeLimit" in v["emptyDir"] for v in pod["spec"]["volumes"] if "emptyDir" in v)
    assert translation.digest == guest.pod_digest
