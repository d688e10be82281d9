"""The one allow-list of PodSpec: what of a hub's pod a home runs, what stays at the hub, what is refused and why.

The hub checks and strips by it before it makes a GuestPod; the home checks the GuestPod by it again, because it does
not trust the hub. Fields are those of Kubernetes v1.36 `core/v1`; a field that a later version adds is refused until
it is named here.

At home exactly these values of the downward API remain references: `status.podIP` and `status.podIPs` in env, and
`metadata.annotations['downward.homefed.io/<16 hex>']` in volumes, whose values the hub wrote in `pod.annotations`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from homefed.core.field_rules import (
    FORBIDDEN,
    Clamped,
    Fault,
    Fields,
    Items,
    Names,
    Quantities,
    Reference,
    Refuse,
    Rename,
    Rule,
    Scalar,
    Stage,
    Strip,
    Walk,
)

MAX_GRACE_SECONDS: Final = 300
"""terminationGracePeriodSeconds is cut to this: a home must be able to empty itself in stated time."""
MAX_POD_BYTES: Final = 262_144
"""Canonical bytes of the translated pod; beyond it the GuestPod and its managed fields outgrow an API object."""
DOWNWARD_PREFIX: Final = "downward.homefed.io/"
INJECTED_VOLUME_PREFIX: Final = "kube-api-access-"
ANNOTATION_PULL_SECRETS: Final = "homefed.io/image-pull-secrets"
"""`Copy` lets the pod's imagePullSecrets leave the hub; without it they stay behind."""

_ENV_FIELD = (
    r"metadata\.(name|namespace|uid|(labels|annotations)\['[^']{1,317}'\])|spec\.(nodeName|serviceAccountName)"
    r"|status\.(hostIPs?|podIPs?)"
)
_VOLUME_FIELD = r"metadata\.(name|namespace|uid|labels|annotations|(labels|annotations)\['[^']{1,317}'\])"
_HOME_VOLUME_FIELD = r"metadata\.annotations\['downward\.homefed\.io/[0-9a-f]{16}'\]"
_DIGITS_OR_NAME = r"[A-Za-z0-9-]{1,15}"

TEXT: Final = Scalar((str,))
FLAG: Final = Scalar((bool,))
NUMBER: Final = Scalar((int,))
SECONDS: Final = Scalar((int,), least=0, most=2**31 - 1, why="must be a number of seconds")
GRACE: Final = Clamped(MAX_GRACE_SECONDS)
PORT: Final = Scalar((int, str), pattern=_DIGITS_OR_NAME, least=1, most=65535, why="must be a port number or name")


def _one_of(*values: str, why: str) -> Scalar:
    return Scalar((str,), pattern="|".join(values), why=why)


def _names_key(*, optional: bool = True, **more: Rule) -> Fields:
    return Fields({"name": TEXT, **({"optional": FLAG} if optional else {}), **more})


_PROFILE: Final = "only type RuntimeDefault: profiles of a home's machines cannot be named"
_SECCOMP: Final = Fields({"type": _one_of("RuntimeDefault", why=_PROFILE)}, _PROFILE)
_PRIVILEGE: Final = "guests run without privileges on other people's machines; remove it"
_SELINUX: Final = "SELinux labels are the home's"

SECURITY_CONTEXT: Final = Fields({
    "allowPrivilegeEscalation": Refuse(_PRIVILEGE),
    "appArmorProfile": _SECCOMP,
    "capabilities": Fields({
        "drop": Items(TEXT),
        "add": Items(_one_of("NET_BIND_SERVICE", why="capabilities cannot be added, except NET_BIND_SERVICE"), 1),
    }),
    "privileged": Refuse(_PRIVILEGE),
    "procMount": Strip(lambda value: value == "Default", "only Default"),
    "readOnlyRootFilesystem": FLAG,
    "runAsGroup": NUMBER,
    "runAsNonRoot": FLAG,
    "runAsUser": NUMBER,
    "seLinuxOptions": Refuse(_SELINUX),
    "seccompProfile": _SECCOMP,
    "windowsOptions": Refuse("guests run on Linux"),
})  # fmt: skip

POD_SECURITY_CONTEXT: Final = Fields({
    "appArmorProfile": _SECCOMP,
    "fsGroup": NUMBER,
    "fsGroupChangePolicy": TEXT,
    "runAsGroup": NUMBER,
    "runAsNonRoot": FLAG,
    "runAsUser": NUMBER,
    "seLinuxChangePolicy": Refuse(_SELINUX),
    "seLinuxOptions": Refuse(_SELINUX),
    "seccompProfile": _SECCOMP,
    "supplementalGroups": Items(NUMBER),
    "supplementalGroupsPolicy": TEXT,
    "sysctls": Refuse("sysctls are the home's"),
    "windowsOptions": Refuse("guests run on Linux"),
})  # fmt: skip

_HOST: Final = Refuse("the kubelet of a home calls no other host; without it the pod itself is called")
_EXEC: Final = Fields({"command": Items(TEXT, 1024)})
_HTTP_GET: Final = Fields({
    "host": _HOST,
    "httpHeaders": Items(Fields({"name": TEXT, "value": TEXT}), 32),
    "path": TEXT,
    "port": PORT,
    "scheme": TEXT,
})  # fmt: skip
_TCP_SOCKET: Final = Fields({"host": _HOST, "port": PORT})

PROBE: Final = Fields({
    "exec": _EXEC,
    "failureThreshold": NUMBER,
    "grpc": Fields({"port": PORT, "service": TEXT}),
    "httpGet": _HTTP_GET,
    "initialDelaySeconds": SECONDS,
    "periodSeconds": SECONDS,
    "successThreshold": NUMBER,
    "tcpSocket": _TCP_SOCKET,
    "terminationGracePeriodSeconds": GRACE,
    "timeoutSeconds": SECONDS,
})  # fmt: skip

_HANDLER: Final = Fields({
    "exec": _EXEC,
    "httpGet": _HTTP_GET,
    "sleep": Fields({"seconds": SECONDS}),
    "tcpSocket": _TCP_SOCKET,
})  # fmt: skip
LIFECYCLE: Final = Fields({"postStart": _HANDLER, "preStop": _HANDLER, "stopSignal": TEXT})

_FIELD_WHY: Final = "this field of the downward API is not known at the home"
_RESOURCE_FIELD: Final = Strip()
_ENV_SOURCE: Final = Fields({
    "configMapKeyRef": Names("ConfigMap", "name", _names_key(key=TEXT)),
    "fieldRef": Fields({
        "apiVersion": TEXT,
        "fieldPath": Scalar((str,), _ENV_FIELD, r"status\.podIPs?", why=_FIELD_WHY),
    }),
    "resourceFieldRef": _RESOURCE_FIELD,
    "secretKeyRef": Names("Secret", "name", _names_key(key=TEXT)),
})  # fmt: skip
ENV: Final = Fields({"name": TEXT, "value": TEXT, "valueFrom": _ENV_SOURCE})
ENV_FROM: Final = Fields({
    "prefix": TEXT,
    "configMapRef": Names("ConfigMap", "name", _names_key()),
    "secretRef": Names("Secret", "name", _names_key()),
})  # fmt: skip

RESOURCES: Final = Fields({
    "claims": Refuse("devices by claim are not offered; request an extended resource"),
    "limits": Quantities(),
    "requests": Quantities(),
})  # fmt: skip

CONTAINER_PORT: Final = Fields({
    "containerPort": PORT,
    "hostIP": Refuse("guests open no port of a home's machine; remove it"),
    "hostPort": Refuse("guests open no port of a home's machine; remove it"),
    "name": TEXT,
    "protocol": TEXT,
})  # fmt: skip

VOLUME_MOUNT: Final = Fields({
    "mountPath": TEXT,
    "mountPropagation": Strip(lambda value: value == "None", "only None: mounts do not cross to the machine"),
    "name": TEXT,
    "readOnly": FLAG,
    "subPath": TEXT,
    "subPathExpr": TEXT,
})  # fmt: skip

CONTAINER: Final = Fields({
    "args": Items(TEXT, 1024),
    "command": Items(TEXT, 1024),
    "env": Items(ENV, 1024),
    "envFrom": Items(ENV_FROM, 64),
    "image": TEXT,
    "imagePullPolicy": Strip(),  # the home's: Always protects its owner's cached private images
    "lifecycle": LIFECYCLE,
    "livenessProbe": PROBE,
    "name": TEXT,
    "ports": Items(CONTAINER_PORT),
    "readinessProbe": PROBE,
    "resizePolicy": Strip(),
    "resources": RESOURCES,
    "restartPolicy": TEXT,
    "securityContext": SECURITY_CONTEXT,
    "startupProbe": PROBE,
    "stdin": FLAG,
    "stdinOnce": FLAG,
    "terminationMessagePath": TEXT,
    "terminationMessagePolicy": TEXT,
    "tty": FLAG,
    "volumeDevices": Refuse("guests have no block devices"),
    "volumeMounts": Items(VOLUME_MOUNT),
    "workingDir": TEXT,
})  # fmt: skip

_KEY_ITEMS: Final = Items(Fields({"key": TEXT, "mode": NUMBER, "path": TEXT}), 1024)
_DOWNWARD_ITEMS: Final = Items(
    Fields({
        "fieldRef": Fields({
            "apiVersion": TEXT,
            "fieldPath": Scalar((str,), _VOLUME_FIELD, _HOME_VOLUME_FIELD, why=_FIELD_WHY),
        }),
        "mode": NUMBER,
        "path": TEXT,
        "resourceFieldRef": _RESOURCE_FIELD,
    })
)  # fmt: skip
_STORAGE: Final = "guests store in emptyDir only; configMap, secret, downwardAPI and projected are read-only"
_TOKENLESS: Final = "a token of this cluster does not leave it; set automountServiceAccountToken: false or remove it"
VOLUME: Final = Fields(
    {
        "configMap": Names("ConfigMap", "name", _names_key(items=_KEY_ITEMS, defaultMode=NUMBER)),
        "downwardAPI": Fields({"defaultMode": NUMBER, "items": _DOWNWARD_ITEMS}),
        "emptyDir": Fields({"medium": _one_of("", "Memory", why="only Memory or none"),
                            "sizeLimit": Scalar((str, int), least=0)}),
        "hostPath": Refuse("guests do not see a home's file system"),
        "name": TEXT,
        "projected": Fields({
            "defaultMode": NUMBER,
            "sources": Items(Fields({
                "configMap": Names("ConfigMap", "name", _names_key(items=_KEY_ITEMS)),
                "downwardAPI": Fields({"items": _DOWNWARD_ITEMS}),
                "secret": Names("Secret", "name", _names_key(items=_KEY_ITEMS)),
                "serviceAccountToken": Refuse(_TOKENLESS),
            }), 64),
        }),
        "secret": Names("Secret", "secretName", Fields({"secretName": TEXT, "optional": FLAG,
                                                        "items": _KEY_ITEMS, "defaultMode": NUMBER})),
    },
    _STORAGE,
)  # fmt: skip

_SHARED: Final = "guests do not share the machine's namespaces; remove it"
_DEVICES: Final = "devices by claim are not offered; request an extended resource"
POD_SPEC: Final = Fields({
    "activeDeadlineSeconds": SECONDS,
    "affinity": Strip(),
    "automountServiceAccountToken": Strip(),
    "containers": Items(CONTAINER, 32),
    "dnsConfig": Refuse("name resolution is the home's; remove it"),
    "dnsPolicy": Strip(lambda value: value == "ClusterFirst", "only ClusterFirst: name resolution is the home's"),
    "enableServiceLinks": Strip(),
    "ephemeralContainers": Strip(),  # kubectl debug on a bound pod; the guest goes on without them
    "hostIPC": Refuse(_SHARED),
    "hostNetwork": Refuse(_SHARED),
    "hostPID": Refuse(_SHARED),
    "hostUsers": Refuse("the home chooses user namespaces; only false is accepted"),
    "hostname": TEXT,
    "imagePullSecrets": Items(Names("Secret", "name", _names_key(optional=False)), 16),
    "initContainers": Items(CONTAINER, 32),
    "nodeName": Strip(),
    "nodeSelector": Strip(),
    "os": Strip(lambda value: value == {"name": "linux"}, "guests run on Linux"),
    "preemptionPolicy": Strip(),
    "priority": Strip(),
    "priorityClassName": Strip(),
    "readinessGates": Refuse("conditions of other controllers do not reach the home; remove it"),
    "resourceClaims": Refuse(_DEVICES),
    "resources": Refuse("resources of the whole pod are not carried; set them per container"),
    "restartPolicy": TEXT,
    "runtimeClassName": Strip(lambda value: str(value).startswith("homefed-"), "only the pool's: homefed-<pool>"),
    "schedulerName": Strip(),
    "schedulingGates": Strip(),
    "securityContext": POD_SECURITY_CONTEXT,
    "serviceAccount": Strip(),
    "serviceAccountName": Strip(),
    "setHostnameAsFQDN": Refuse("guests have no fully qualified name; remove it"),
    "shareProcessNamespace": FLAG,
    "subdomain": Strip(),  # StatefulSets set it; the hub's DNS does not reach guests
    "terminationGracePeriodSeconds": GRACE,
    "tolerations": Strip(),
    "topologySpreadConstraints": Strip(),
    "volumes": Items(VOLUME, 64),
})  # fmt: skip


def check(spec: Any, *, stage: Stage) -> list[Fault]:
    """Faults of a PodSpec, at most eight; empty when a guest may have it.

    `hub`: the spec as the hub's API server stores it, injected fields included. `home`: `GuestPod.spec.pod.spec`.
    """
    walk = Walk(stage)
    POD_SPEC.carry(without_injected(spec) if stage == "hub" else spec, "spec", walk)
    if stage == "hub" and isinstance(spec, Mapping):
        _check_service_account(spec, walk)
    return walk.faults


def carry(spec: Mapping[str, Any], *, rename: Rename | None = None) -> dict[str, Any]:
    """A copy of a hub's PodSpec with the carried fields only; references renamed. Faults are `check`'s to tell."""
    carried = POD_SPEC.carry(without_injected(spec), "spec", Walk("hub", rename))
    return carried if isinstance(carried, dict) else {}


def references(spec: Mapping[str, Any], *, stage: Stage) -> list[Reference]:
    """The ConfigMaps and Secrets that the spec names, in order, repeated as they are repeated."""
    walk = Walk(stage)
    POD_SPEC.carry(without_injected(spec) if stage == "hub" else spec, "spec", walk)
    return walk.references


def without_injected(spec: Any) -> Any:
    """The spec without the token that the API server mounts into every pod; certificate and namespace stay."""
    if not isinstance(spec, dict) or not isinstance(spec.get("volumes"), list):
        return spec
    return spec | {"volumes": [_without_token(volume) for volume in spec["volumes"]]}


def _without_token(volume: Any) -> Any:
    if not isinstance(volume, dict) or not str(volume.get("name")).startswith(INJECTED_VOLUME_PREFIX):
        return volume
    projected = volume.get("projected")
    if not isinstance(projected, dict) or not isinstance(projected.get("sources"), list):
        return volume
    kept = [s for s in projected["sources"] if not (isinstance(s, dict) and set(s) == {"serviceAccountToken"})]
    return volume | {"projected": projected | {"sources": kept}}


def _check_service_account(spec: Mapping[str, Any], walk: Walk) -> None:
    """A named account means rights at the hub's API, which a guest does not have: said, unless it renounces them."""
    account = spec.get("serviceAccountName") or "default"
    if account != "default" and spec.get("automountServiceAccountToken") is not False:
        walk.fault(
            "spec.serviceAccountName",
            FORBIDDEN,
            "guests get no token of this cluster; set automountServiceAccountToken: false or use the default account",
        )


def is_downward_annotation(key: str) -> bool:
    """Whether an annotation of the translated pod is a value of the downward API, the only kind that is carried."""
    return re.fullmatch(r"downward\.homefed\.io/[0-9a-f]{16}", key) is not None
