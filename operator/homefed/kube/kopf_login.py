"""kopf with the same credentials as our own client, from the same place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import kopf
from kubernetes.aio.client.configuration import Configuration

from homefed.kube.transport import Load


def login(load: Load) -> Callable[..., Awaitable[kopf.ConnectionInfo]]:
    """A handler for `@kopf.on.login`; kopf calls it again when its credentials are refused, as tokens expire."""

    async def handler(**_known: object) -> kopf.ConnectionInfo:
        configuration = Configuration()
        await load(configuration)
        scheme, _, credential = str(configuration.api_key.get("BearerToken") or "").partition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            ca_data=configuration.ca_cert_data,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            token=credential or scheme or None,  # "Bearer x" of a kubeconfig, "bearer x" in a pod
        )

    return handler
