"""Names, labels and identities: the strings that hub, home and ledger must agree on, derived in one place."""

from __future__ import annotations

import hashlib
from typing import Final

GROUP: Final = "homefed.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

NODE_PREFIX: Final = "hf-"
MAILBOX_PREFIX: Final = "homefed-home-"
GUESTS_NAMESPACE: Final = "homefed-guests"
GUESTS_QUOTA: Final = "homefed-guests"
"""The ResourceQuota in the guests' namespace."""
AGENT_SERVICE_ACCOUNT: Final = "homefed-agent"
HUB_LEASE: Final = "homefed-hub"
"""Lease in every mailbox: holderIdentity = the hub operator's identity, renewTime = start of its last full pass."""
NODE_LEASE_NAMESPACE: Final = "kube-node-lease"
MAILBOX_AGENT_ROLE: Final = "homefed-mailbox-agent"
MAILBOX_HUB_ROLE: Final = "homefed-mailbox-hub"
CONSUMER_ROLE: Final = "homefed-consumer-objects"
"""ClusterRole: read ConfigMaps and Secrets of a consumer's namespace; bound per enabled namespace."""

LABEL_HOME: Final = "homefed.io/home"
LABEL_HOME_UID: Final = "homefed.io/home-uid"
LABEL_POOL: Final = "homefed.io/pool"
LABEL_MACHINE: Final = "homefed.io/machine"
LABEL_OS: Final = "homefed.io/os"
LABEL_EGRESS: Final = "homefed.io/egress"
LABEL_CLASS: Final = "homefed.io/class"
"""Of a virtual node: the class of machines by which its guests are priced."""
LABEL_PRICE_PERCENT: Final = "homefed.io/price-percent"
"""Of a virtual node: what its owner asks, in percent of the rate card."""
LABEL_HUB_UID: Final = "homefed.io/hub-uid"
LABEL_NODE: Final = "homefed.io/node"
LABEL_GUEST: Final = "homefed.io/guest"
LABEL_OFFER: Final = "homefed.io/offer"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_VIRTUAL: Final = "type"
VIRTUAL_NODE_TYPE: Final = "virtual-kubelet"
LABEL_ENABLED_PREFIX: Final = "pools.homefed.io/"
TAINT_POOL: Final = "homefed.io/pool"

ANNOTATION_DIGEST: Final = "homefed.io/pod-digest"
ANNOTATION_LIMITS: Final = "homefed.io/limits"
ANNOTATION_ON_DISCONNECT: Final = "homefed.io/on-disconnect"
ANNOTATION_SETTLED: Final = "homefed.io/settled-through"
"""Of a GuestPod that has ended: end of the window up to which all of it is in receipted claims."""
ANNOTATION_ROTATE_KEY: Final = "homefed.io/rotate-key"
"""Of the Secret `<release>-agent`: the owner wants another key; a value that was not served yet asks for one."""
ANNOTATION_FORCE_DELETE: Final = "homefed.io/force-delete"
ANNOTATION_RESUME: Final = "homefed.io/resume-settlement"
"""Of a Home, `retry` or `resend`: the organiser lets settlement go on; the hub takes it away when it has."""
ANNOTATION_REVIEW: Final = "homefed.io/review-claims"
"""Of a Home: claims of its mailbox are annotated with corrections; the hub takes it away when they are written."""
ANNOTATION_CORRECTION: Final = "homefed.io/correction"
"""Of a RewardClaim's header, the organiser's word: `resettle` or `forfeit`."""
ANNOTATION_REASON: Final = "homefed.io/reason"
ANNOTATION_WITHHOLD: Final = "homefed.io/withhold-held"
"""Of a Home, with the organiser's reason: nothing of what is held back is released."""

FINALIZER_HOME: Final = "homefed.io/home"
FINALIZER_GUEST: Final = "homefed.io/guest"
FINALIZER_CONTRIBUTION: Final = "homefed.io/contribution"

HUB_MANAGER: Final = "homefed-hub"
AGENT_MANAGER: Final = "homefed-agent"
LEDGER_AUDIENCE: Final = "homefed-ledger"

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"
"""Home and pool names: DNS labels of at most 40 characters."""


def mailbox(home: str) -> str:
    """Namespace on the hub through which hub and this home exchange objects."""
    return MAILBOX_PREFIX + home


def runtime_class(pool: str) -> str:
    return f"homefed-{pool}"


def enabled_label(pool: str) -> str:
    """Label on a consumer's namespace that lets its pods use the pool."""
    return LABEL_ENABLED_PREFIX + pool


def machine_id(node_uid: str, salt: str) -> str:
    """64 hex digits: SHA-256 of the home Node's UID, salted with a secret that stays at home."""
    return hashlib.sha256(f"{salt}\n{node_uid}".encode()).hexdigest()


def virtual_node(home: str, home_uid: str, machine: str) -> str:
    """Name of the virtual Node and of its Lease for one machine of one Home."""
    digest = hashlib.sha256(f"{home_uid}/{machine}".encode()).hexdigest()
    return f"{NODE_PREFIX}{home}-{digest[:8]}"


def home_pod(hub_uid: str) -> str:
    """Name of the pod that runs in the home for the hub's pod with this UID."""
    return f"{NODE_PREFIX}{hub_uid}"


def copy_name(hub_uid: str, kind: str, name: str) -> str:
    """Name, in the mailbox and at home, of the copy of one ConfigMap or Secret that one pod names."""
    digest = hashlib.sha256(f"{kind}/{name}".encode()).hexdigest()
    return f"{hub_uid}-{digest[:8]}"


def contributor_account(federation: str, home_uid: str) -> str:
    return f"contributor:{federation}/{home_uid}"


def held_account(federation: str, home_uid: str) -> str:
    return f"held:{federation}/{home_uid}"


def consumer_account(federation: str, namespace_uid: str) -> str:
    return f"consumer:{federation}/{namespace_uid}"


def fee_account(federation: str, pool: str) -> str:
    return f"fee:{federation}/{pool}"


def dust_account(federation: str, pool: str) -> str:
    return f"dust:{federation}/{pool}"
