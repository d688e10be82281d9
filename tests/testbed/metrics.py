"""A real Prometheus over samples that were made up (blocks written by promtool, then served), or that it scrapes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from testbed import ports
from testbed.binaries import Binaries
from testbed.process import Process

READY: Final = "Server is ready to receive web requests"


@dataclass(frozen=True)
class Made:
    """One series: `points` are (seconds since the epoch, value)."""

    name: str
    labels: dict[str, str]
    points: Sequence[tuple[float, float]]

    def lines(self) -> Iterator[str]:
        labels = ",".join(f'{name}="{value}"' for name, value in sorted(self.labels.items()))
        for second, value in sorted(self.points):
            yield f"{self.name}{{{labels}}} {value!r} {second:.3f}"


def write_blocks(binaries: Binaries, folder: Path, series: Iterable[Made]) -> Path:
    """A TSDB folder that holds these series."""
    by_name: dict[str, list[Made]] = {}
    for one in series:
        by_name.setdefault(one.name, []).append(one)
    text = "\n".join(line for group in by_name.values() for one in group for line in one.lines())
    source, data = folder / "samples.txt", folder / "data"
    source.write_text(f"{text}\n# EOF\n")
    data.mkdir()
    command = [str(binaries.path("promtool")), "tsdb", "create-blocks-from", "openmetrics", str(source), str(data)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return data


@contextmanager
def prometheus(
    binaries: Binaries, folder: Path, series: Iterable[Made], *, program: Path | None = None
) -> Iterator[str]:
    """Address of a Prometheus that has these series and scrapes nothing; `program`: another than the testbed's own."""
    data = write_blocks(binaries, folder, series)
    with serve(program or binaries.path("prometheus"), folder, data=data) as url:
        yield url


@contextmanager
def serve(
    program: Path,
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    data: Path | None = None,
    web: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Address of a Prometheus with this configuration; `web` is its web configuration: TLS, users.

    JSON is YAML, so that both are written as JSON."""
    (folder / "prometheus.yaml").write_text(json.dumps(config or {"global": {}}))
    (folder / "web.yaml").write_text(json.dumps(web or {}))
    (port,) = ports.reserve(1)
    argv: list[str | Path] = [program, f"--config.file={folder / 'prometheus.yaml'}"]
    argv += [f"--storage.tsdb.path={data or folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    argv += ["--storage.tsdb.retention.time=50y", f"--web.config.file={folder / 'web.yaml'}"]
    log = folder / "prometheus.log"
    before = _times_ready(log)
    process = Process("prometheus", argv, log)
    try:
        process.start()
        process.wait_until(lambda: _times_ready(log) > before, 60.0)
        yield f"{'https' if 'tls_server_config' in (web or {}) else 'http'}://127.0.0.1:{port}"
    finally:
        process.stop()
        ports.release([port])


def _times_ready(log: Path) -> int:
    """How often it has said so in a log that outlasts it: neither TLS nor users are in this way."""
    return log.read_text(errors="replace").count(READY) if log.exists() else 0
