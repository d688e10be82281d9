"""The options of the agent's Prometheus: by arguments, and by the environment that the chart gives its pod."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from homefed.agent.app import Agent, Config
from homefed.api.errors import Invalid
from homefed.cli.processes import prometheus_options
from homefed.kube.client import KubeClient
from homefed.kube.transport import bearer


@click.command()
@prometheus_options
def told(**options: object) -> None:
    for name, value in sorted(options.items()):
        click.echo(f"{name}={value}")


def test_the_environment_tells_what_arguments_do_not() -> None:
    environment = {
        "HOMEFED_PROMETHEUS_URL": "https://prometheus.example",
        "HOMEFED_PROMETHEUS_AUTH_DIR": "/etc/homefed/prometheus",
        "HOMEFED_PROMETHEUS_TIMEOUT": "1m",
        "HOMEFED_SCRAPE_INTERVAL": "30s",
    }
    found = CliRunner().invoke(told, ["--scrape-interval=15s"], env=environment)
    assert found.output.splitlines() == [
        "prometheus_auth_dir=/etc/homefed/prometheus",
        "prometheus_timeout_seconds=60",
        "prometheus_url=https://prometheus.example",
        "scrape_interval_seconds=15",
    ]


def agent(**changes: object) -> Agent:
    config = Config(namespace="homefed", **changes)  # type: ignore[arg-type]
    return Agent(config, KubeClient(bearer("https://home.example", None, "token")))


def test_the_agent_reads_with_the_credentials_of_its_folder(tmp_path: Path) -> None:
    for name in ("username", "password", "tls.crt", "tls.key"):
        (tmp_path / name).write_text("x")
    found = agent(
        prometheus_url="https://prometheus.example", prometheus_auth_dir=tmp_path, prometheus_timeout_seconds=7
    )._prometheus()
    assert (found.username_file, found.key_file) == (tmp_path / "username", tmp_path / "tls.key")
    assert (found.token_file, found.ca_file) == (None, None)
    assert found.timeout_seconds == 7
    assert found.namespace == "homefed-guests"


def test_an_agent_without_an_address_says_what_is_missing() -> None:
    with pytest.raises(Invalid, match=r"prometheus\.url"):
        agent()._prometheus()
