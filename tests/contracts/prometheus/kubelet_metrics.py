"""What a kubelet offers at /metrics/cadvisor and /metrics/resource, for a real Prometheus to scrape; on loopback.

The text follows the kubelet's own: containers, their pod's sandbox with the network counters, the machine's root; each
sample with the time at which cAdvisor read it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

UID = "0f5a6f0e-3d1c-4a54-9d0e-64c5a8d2b111"
POD = f"hf-{UID}"
NAMESPACE = "homefed-guests"
_POD_CGROUP = f"/kubepods/burstable/pod{UID}"
_LABELS = {"namespace": NAMESPACE, "pod": POD}
_APP = {**_LABELS, "container": "app", "id": f"{_POD_CGROUP}/aa11", "image": "busybox", "name": "aa11"}
_SANDBOX = {**_LABELS, "container": "", "id": f"{_POD_CGROUP}/bb22", "image": "pause", "name": "bb22"}
_ROOT = {"namespace": "", "pod": "", "container": "", "id": "/", "image": "", "name": ""}


@dataclass
class Behaviour:
    ahead_s: float = 0.0
    """Of the machine's clock."""
    late_s: float = 0.7
    """Between cAdvisor's look at a container and the scrape."""
    fails_every: int = 0
    """Every so many scrapes the answer is 500; 0: never."""
    scrapes: int = 0


def cadvisor(moment: float) -> str:
    """The page at /metrics/cadvisor, read at `moment` (seconds)."""
    at = round(moment * 1000)
    run = moment % 1_000_000
    rows = [
        _row("container_cpu_usage_seconds_total", _ROOT | {"cpu": "total"}, run, at),
        _row("container_cpu_usage_seconds_total", _APP | {"cpu": "total"}, run / 4, at),
        _row("container_cpu_usage_seconds_total", _SANDBOX | {"cpu": "total"}, 0.02, at),
        _row("container_memory_working_set_bytes", _APP, 64 * 2**20, at),
        _row("container_start_time_seconds", _APP, 1_767_225_600, at),
        _row("container_start_time_seconds", _SANDBOX, 1_767_225_600, at),
    ]
    for way in ("receive", "transmit"):
        rows.append(_row(f"container_network_{way}_bytes_total", _SANDBOX | {"interface": "eth0"}, run * 10, at))
    return "\n".join(rows) + "\n"


def resource(moment: float) -> str:
    """The page at /metrics/resource: the same names, fewer labels."""
    at = round(moment * 1000)
    labels = {"namespace": NAMESPACE, "pod": POD, "container": "app"}
    rows = [
        _row("container_cpu_usage_seconds_total", labels, (moment % 1_000_000) / 4, at),
        _row("container_memory_working_set_bytes", labels, 64 * 2**20, at),
        _row("container_start_time_seconds", labels, 1_767_225_600, at),
    ]
    return "\n".join(rows) + "\n"


def _row(name: str, labels: dict[str, str], value: float, at: int) -> str:
    text = ",".join(f'{label}="{content}"' for label, content in sorted(labels.items()))
    return f"{name}{{{text}}} {value} {at}"


@contextmanager
def kubelet(behaviour: Behaviour | None = None) -> Iterator[str]:
    """host:port of one; `behaviour` may be changed while it runs."""
    how = behaviour or Behaviour()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            how.scrapes += 1
            moment = time.time() + how.ahead_s - how.late_s
            pages = {"/metrics/cadvisor": cadvisor, "/metrics/resource": resource}
            failing = how.fails_every and how.scrapes % how.fails_every == 0
            body = pages[self.path](moment).encode()
            self.send_response(500 if failing else 200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
