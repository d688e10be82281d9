"""A real Prometheus over samples that were made up: blocks written by promtool, then served."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import ports
from testbed.binaries import Binaries
from testbed.process import Process


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
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return data


@contextmanager
def prometheus(binaries: Binaries, folder: Path, series: Iterable[Made]) -> Iterator[str]:
    """Address of a Prometheus that has these series and scrapes nothing."""
    data = write_blocks(binaries, folder, series)
    config = folder / "prometheus.yaml"
    config.write_text("global: {}\n")
    (port,) = ports.reserve(1)
    url = f"http://127.0.0.1:{port}"
    argv: list[str | Path] = [binaries.path("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}"]
    argv += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=50y"]
    process = Process("prometheus", argv, folder / "prometheus.log")
    try:
        process.start()
        process.wait_until(lambda: _ready(url), 30.0)
        yield url
    finally:
        process.stop()
        ports.release([port])


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:  # noqa: S310 - our own loopback address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
