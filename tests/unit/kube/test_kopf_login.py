"""kopf's credentials are those of our own client, in a pod and outside."""

from __future__ import annotations

import pytest
from kubernetes.aio.client.configuration import Configuration

from homefed.kube.kopf_login import login


@pytest.mark.parametrize("header", ["Bearer s3cret", "bearer s3cret", "s3cret"])
async def test_the_token_is_passed_without_its_scheme_however_it_is_spelt(header: str) -> None:
    async def load(configuration: Configuration) -> None:
        configuration.host = "https://192.0.2.1"
        configuration.api_key["BearerToken"] = header

    info = await login(load)()
    assert info.token == "s3cret"


async def test_without_a_token_there_is_none() -> None:
    async def load(configuration: Configuration) -> None:
        configuration.host = "https://192.0.2.1"

    assert (await login(load)()).token is None
