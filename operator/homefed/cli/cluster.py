"""How commands reach a cluster: the person's own kubeconfig, as kubectl does."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import yaml

from homefed.api.errors import Invalid
from homefed.kube.client import KubeClient

P = ParamSpec("P")
T = TypeVar("T")


def default_kubeconfig() -> Path:
    return Path(os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or Path.home() / ".kube" / "config")


def cluster_options(command: Callable[P, T]) -> Callable[P, T]:
    """`--kubeconfig` and `--context`, as parameters `kubeconfig` and `context`."""
    command = click.option("--context", default=None, help="Context of the kubeconfig; default: its current one.")(
        command
    )
    return click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path, dir_okay=False),
        default=default_kubeconfig,
        show_default="$KUBECONFIG or ~/.kube/config",
    )(command)


def asynchronous(command: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Run an async command in an event loop of its own."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return asyncio.run(command(*args, **kwargs))

    return run


def client(kubeconfig: Path, context: str | None) -> KubeClient:
    return KubeClient.from_kubeconfig(kubeconfig, context)


@dataclass(frozen=True)
class Endpoint:
    """An API server as others reach it."""

    url: str
    ca: str
    """PEM; empty: the system's authorities."""


def endpoint(kubeconfig: Path, context: str | None) -> Endpoint:
    """Address and CA of the kubeconfig's context; Invalid names the file and the member that is missing."""
    try:
        config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        chosen = context or config["current-context"]
        name = next(entry["context"]["cluster"] for entry in config["contexts"] if entry["name"] == chosen)
        cluster = next(entry["cluster"] for entry in config["clusters"] if entry["name"] == name)
        return Endpoint(str(cluster["server"]), _authority(kubeconfig, cluster))
    except OSError as error:
        raise Invalid(f"kubeconfig {kubeconfig}: {error.strerror}", reason="NoKubeconfig") from error
    except (yaml.YAMLError, KeyError, TypeError, StopIteration, ValueError) as error:
        problem = f"{kubeconfig}: context {context or '(current)'} has no usable cluster entry"
        raise Invalid(f"kubeconfig {problem}", reason="MalformedKubeconfig") from error


def _authority(kubeconfig: Path, cluster: dict[str, Any]) -> str:
    if data := cluster.get("certificate-authority-data"):
        return base64.b64decode(str(data)).decode()
    if path := cluster.get("certificate-authority"):
        return (kubeconfig.parent / str(path)).read_text(encoding="utf-8")
    return ""
