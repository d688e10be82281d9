"""`homefed hub` and `homefed agent`: long-running processes, told everything by arguments. The ledger: `cli.ledger`."""

from __future__ import annotations

import asyncio
import os
import platform
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click

from homefed.api import names
from homefed.cli.logs import configure_logging

P = ParamSpec("P")
T = TypeVar("T")

FILE: Final = click.Path(path_type=Path, dir_okay=False)
FOLDER: Final = click.Path(path_type=Path, file_okay=False)
_DURATION: Final = re.compile(r"^([0-9]+)(s|m|h|d)$")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[int]):
    """Seconds, written as Prometheus does: 15s, 1m, 30d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _DURATION.match(str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration such as 15s or 1m", param, ctx)
        return int(match[1]) * _SECONDS[match[2]]


def process_options(command: Callable[P, T]) -> Callable[P, T]:
    """What all processes have: logs, and the cluster they run against."""
    for option in (
        click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"),
        click.option("--log-format", type=click.Choice(["json", "text"]), default="text"),
        click.option("--kubeconfig", type=FILE, default=None, help="Default: the pod's own ServiceAccount."),
    ):
        command = option(command)
    return command


def health_options(command: Callable[P, T]) -> Callable[P, T]:
    for option in (
        click.option("--health-host", default="0.0.0.0", show_default=True),  # noqa: S104 - the kubelet probes it
        click.option("--health-port", default=8081, show_default=True, type=click.IntRange(0, 65535)),
    ):
        command = option(command)
    return command


def prometheus_options(command: Callable[P, T]) -> Callable[P, T]:
    """Of the agent, and of what looks at its meter: in the agent's pod the environment tells both."""
    files = "Credentials: files token, or username and password; tls.crt and tls.key; ca.crt."
    for option in (
        click.option(
            "--scrape-interval",
            "scrape_interval_seconds",
            type=Duration(),
            default="15s",
            show_default=True,
            envvar="HOMEFED_SCRAPE_INTERVAL",
        ),
        click.option(
            "--prometheus-timeout",
            "prometheus_timeout_seconds",
            type=Duration(),
            default="30s",
            show_default=True,
            help="Of one query.",
            envvar="HOMEFED_PROMETHEUS_TIMEOUT",
        ),
        click.option(
            "--prometheus-auth-dir", type=FOLDER, default=None, help=files, envvar="HOMEFED_PROMETHEUS_AUTH_DIR"
        ),
        click.option(
            "--prometheus-url",
            default="",
            help="Empty: nothing that was used can be paid.",
            envvar="HOMEFED_PROMETHEUS_URL",
        ),
    ):
        command = option(command)
    return command


def identity_option(command: Callable[P, T]) -> Callable[P, T]:
    """Who the process is in its Lease. A successor of the same identity goes on at once instead of waiting it out."""
    text = "Of this process in its Lease, never the same for two that run at once; in a cluster the pod's name."
    return click.option("--identity", default=_unlike_any_other, help=f"{text} Default: a new one.")(command)


def _unlike_any_other() -> str:
    return f"{platform.node()}_{os.getpid()}_{os.urandom(4).hex()}"


def run_process(main: Coroutine[Any, Any, None], level: str, form: str) -> None:
    configure_logging(level, json=form == "json")
    asyncio.run(main)


@click.command()
@click.option("--federation-id", required=True, help="DNS label; immutable, part of every account and claim.")
@click.option("--namespace", default="homefed", show_default=True, help="Where the operator runs.")
@click.option("--release", default="homefed", show_default=True, help="Prefix of our objects there.")
@click.option("--ledger-url", default="", help="Empty: claims are made and stored, and wait.")
@click.option("--ledger-ca", type=FILE, default=None)
@click.option("--ledger-token-file", type=FILE, default=None)
@identity_option
@health_options
@process_options
def hub(log_level: str, log_format: str, release: str, **options: Any) -> None:
    """The hub operator: pools, homes, virtual nodes, guest pods, settlement."""
    from homefed.hub.app import run
    from homefed.hub.config import Config

    own = f"{release}-hub"
    config = Config(release=release, service_account=own, lease_name=own, **options)
    run_process(run(config), log_level, log_format)


@click.command()
@click.option("--namespace", default="homefed", show_default=True, help="Where the agent runs and Contributions are.")
@click.option("--release", default="homefed", show_default=True, help="Prefix of our objects there.")
@click.option("--guests-namespace", default=names.GUESTS_NAMESPACE, show_default=True)
@prometheus_options
@click.option("--evidence-dir", type=FOLDER, required=True, help="Raw samples of settled windows.")
@click.option("--ledger-url", default="", help="Public address of the ledger; empty: this home is no witness.")
@click.option("--ledger-ca", type=FILE, default=None)
@click.option("--ledger-key", default="", help="Its verifier key; empty: the first one seen is kept.")
@click.option("--ledger-interval", "ledger_seconds", type=Duration(), default="60s", show_default=True)
@click.option("--image-pull-policy", type=click.Choice(["Always", "IfNotPresent", "Never"]), default="Always")
@click.option("--pod-security-version", default="v1.30", show_default=True)
@identity_option
@health_options
@process_options
def agent(log_level: str, log_format: str, release: str, **options: Any) -> None:
    """A home's agent: contributions, guests, leases, the meter."""
    from homefed.agent.app import Config, run

    run_process(run(Config(release=release, lease_name=f"{release}-agent", **options)), log_level, log_format)
