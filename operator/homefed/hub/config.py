"""What the hub operator is told at its start: once, by arguments; nothing else in it reads the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from homefed.kube import transport
from homefed.kube.client import KubeClient


@dataclass(frozen=True)
class Config:
    """Settings of one hub operator."""

    federation_id: str
    """Immutable; part of every ledger account and claim id."""
    namespace: str = "homefed"
    """Where the operator runs: its Lease, its key."""
    release: str = "homefed"
    """The Helm release: names the Secret `<release>-hub`, ConfigMaps `<release>-hub-key` and `<release>-home-keys`."""
    service_account: str = "homefed-hub"
    """The operator's own ServiceAccount in `namespace`: bound in every mailbox."""
    identity: str = "homefed-hub"
    """Of this process: must differ between processes that run at once; the pod's name in a cluster, so that a
    container's restart need not wait for the Lease to expire."""
    kubeconfig: Path | None = None
    """None: the pod's ServiceAccount."""
    context: str | None = None
    ledger_url: str = ""
    """Empty: claims are made and stored, and wait."""
    ledger_ca: Path | None = None
    ledger_token_file: Path | None = None
    ledger_key: str = ""
    """The ledger's verifier key; empty: that of the receipts that there are, else the first one seen."""
    health_host: str = "0.0.0.0"  # noqa: S104 - the kubelet probes the pod's own address
    health_port: int = 8080
    """0: chosen by the system."""
    lease_name: str = "homefed-hub"
    lease_seconds: int = 30
    full_pass_seconds: float = 60.0
    settlement_seconds: float = 5.0
    """Between two settlement passes."""

    @property
    def key_secret(self) -> str:
        return f"{self.release}-hub"

    @property
    def key_config_map(self) -> str:
        return f"{self.release}-hub-key"

    @property
    def home_keys_config_map(self) -> str:
        return f"{self.release}-home-keys"

    def load(self) -> transport.Load:
        """How to reach the hub's API server."""
        return transport.incluster() if self.kubeconfig is None else transport.kubeconfig(self.kubeconfig, self.context)

    def client(self) -> KubeClient:
        return KubeClient(self.load())
