"""The command lines of a control plane's components, as pure functions of what a cluster is."""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.pki import Pki

ETCD = "etcd"
APISERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
CONTROL_PLANE = frozenset({ETCD, APISERVER, CONTROLLER_MANAGER, SCHEDULER})
APISERVER_ONLY = frozenset({ETCD, APISERVER})


@dataclass(frozen=True)
class Ports:
    """One TCP port per listener."""

    etcd_client: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int


@dataclass(frozen=True)
class Spec:
    """All that the command lines depend on. `advertise_ip` is what clients and pods reach the API server by; where it
    is None nothing but loopback does, and the `kubernetes` Service has no endpoints."""

    folder: Path
    pki: Pki
    ports: Ports
    bind_ip: str
    advertise_ip: str | None
    service_cidr: str
    pod_cidr: str
    allocate_node_cidrs: bool
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def kubernetes_service_ip(self) -> str:
        return first_service_ip(self.service_cidr)

    def kubeconfig(self, user: str) -> Path:
        return self.folder / f"{user}.kubeconfig"


def first_service_ip(service_cidr: str) -> str:
    """The address of the `kubernetes` Service: the first of the range."""
    return str(ipaddress.ip_network(service_cidr)[1])


def command_line(component: str, spec: Spec) -> list[str]:
    """The flags of a component; `spec.extra` comes last, so that it wins over a default."""
    flags = {
        ETCD: _etcd,
        APISERVER: _apiserver,
        CONTROLLER_MANAGER: _controller_manager,
        SCHEDULER: _scheduler,
    }[component](spec)
    return [*flags, *spec.extra.get(component, ())]


def _etcd(spec: Spec) -> list[str]:
    client = f"http://127.0.0.1:{spec.ports.etcd_client}"
    peer = f"http://127.0.0.1:{spec.ports.etcd_peer}"
    return [
        "--name=default",
        f"--data-dir={spec.folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # data survive the processes, not the machine; that is enough here
        "--auto-compaction-retention=1",
        "--log-level=warn",
    ]


def _apiserver(spec: Spec) -> list[str]:
    pki, serving = spec.pki, spec.pki.pair("apiserver")
    kubelet, proxy = pki.pair("apiserver-kubelet-client"), pki.pair("front-proxy-client")
    return [
        f"--etcd-servers=http://127.0.0.1:{spec.ports.etcd_client}",
        f"--bind-address={spec.bind_ip}",
        f"--secure-port={spec.ports.apiserver}",
        *_reachability(spec),
        f"--tls-cert-file={serving.cert}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={pki.ca.cert}",
        f"--kubelet-client-certificate={kubelet.cert}",
        f"--kubelet-client-key={kubelet.key}",
        f"--kubelet-certificate-authority={pki.ca.cert}",
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki.service_account.cert}",
        f"--service-account-signing-key-file={pki.service_account.key}",
        f"--requestheader-client-ca-file={pki.ca.cert}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={proxy.cert}",
        f"--proxy-client-key-file={proxy.key}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={spec.service_cidr}",
        f"--audit-policy-file={spec.folder / 'audit-policy.json'}",
        f"--audit-log-path={spec.folder / 'audit.log'}",
        "--audit-log-maxsize=4096",
        "--profiling=false",
    ]


def _reachability(spec: Spec) -> list[str]:
    if spec.advertise_ip is None:
        return ["--endpoint-reconciler-type=none", "--advertise-address=127.0.0.1"]
    return ["--endpoint-reconciler-type=lease", f"--advertise-address={spec.advertise_ip}"]


def _controller_manager(spec: Spec) -> list[str]:
    cidrs = [f"--cluster-cidr={spec.pod_cidr}"] if spec.allocate_node_cidrs else []
    return [
        *_client(spec, CONTROLLER_MANAGER, spec.ports.controller_manager),
        f"--root-ca-file={spec.pki.ca.cert}",
        f"--service-account-private-key-file={spec.pki.service_account.key}",
        f"--cluster-signing-cert-file={spec.pki.ca.cert}",
        f"--cluster-signing-key-file={spec.pki.ca.key}",
        "--use-service-account-credentials=true",
        "--controllers=*,tokencleaner",
        f"--service-cluster-ip-range={spec.service_cidr}",
        f"--allocate-node-cidrs={str(spec.allocate_node_cidrs).lower()}",
        *cidrs,
    ]


def _scheduler(spec: Spec) -> list[str]:
    return _client(spec, SCHEDULER, spec.ports.scheduler)


def _client(spec: Spec, component: str, port: int) -> list[str]:
    """What the two clients of the API server have in common."""
    kubeconfig, serving = spec.kubeconfig(component), spec.pki.pair("apiserver")
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={serving.cert}",
        f"--tls-private-key-file={serving.key}",
        "--leader-elect=false",
        # With the default of 20 requests/s the controller manager takes 6 s to make its own ServiceAccounts.
        "--kube-api-qps=300",
        "--kube-api-burst=600",
        "--profiling=false",
    ]
