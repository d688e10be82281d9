"""The chart's templates rendered without a cluster, by either Helm, as decoded objects."""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from testbed.binaries import Binaries, load_versions
from testbed.installation import CHART, NAMESPACE, RELEASE, HelmError

Object = dict[str, Any]
HELMS = (3, 4)


def render(
    binaries: Binaries,
    values: Mapping[str, Any],
    *arguments: str,
    version: int = 4,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
) -> list[Object]:
    """`helm template`, hooks included. Raises HelmError."""
    text = _run(binaries, version, values, ["template", release, str(CHART), f"--namespace={namespace}", *arguments])
    return [obj for obj in yaml.safe_load_all(text) if obj]


def lint(binaries: Binaries, values: Mapping[str, Any], *, version: int = 4) -> str:
    """`helm lint --strict`. Raises HelmError."""
    return _run(binaries, version, values, ["lint", str(CHART), "--strict", f"--namespace={NAMESPACE}"])


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    return [obj for obj in objects if obj["kind"] in kinds]


def pod_templates(objects: Sequence[Object]) -> dict[str, Object]:
    """Component → pod template of every Deployment and Job."""
    workloads = of_kind(objects, "Deployment", "Job")
    templates = [workload["spec"]["template"] for workload in workloads]
    return {template["metadata"]["labels"]["app.kubernetes.io/component"]: template for template in templates}


def _run(binaries: Binaries, version: int, values: Mapping[str, Any], arguments: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory(prefix="homefed-chart-") as folder:
        file = Path(folder) / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values)))
        places = {f"HELM_{what}_HOME": str(Path(folder) / what.lower()) for what in ("CACHE", "CONFIG", "DATA")}
        # Helm's own notion of it depends on how Helm was built.
        kube_version = f"--kube-version={load_versions()['controlplane']['kubernetes']}"
        command = [str(binaries.path(f"helm{version}")), *arguments, kube_version, f"--values={file}"]
        done = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise HelmError(arguments, done.stdout + done.stderr)
    return done.stdout
