"""What the service says about itself to Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Own registry: two services in one process (tests) do not meet. Times are seconds."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        labels = ["route", "status"]
        self._requests = Counter("homefed_ledger_requests", "Answers, by route and status.", labels, registry=own)
        self._refused = Counter("homefed_ledger_refusals", "Refusals, by reason.", ["reason"], registry=own)
        self._accepted = Counter(
            "homefed_ledger_accepted", "Documents made durable by this process, by kind.", ["kind"], registry=own
        )
        self._batch = Histogram(
            "homefed_ledger_batch_items",
            "Submissions per transaction.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=own,
        )
        self._seconds = Histogram(
            "homefed_ledger_commit_seconds",
            "Time of a transaction, with its fsync and that of the high-water mark.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
            registry=own,
        )
        self._waiting = Gauge("homefed_ledger_queue_depth", "Submissions taken and not answered.", registry=own)
        self._size = Gauge("homefed_ledger_signed_size", "Leaves under the newest checkpoint.", registry=own)
        self._time = Gauge(
            "homefed_ledger_checkpoint_timestamp_seconds", "When the newest checkpoint was signed.", registry=own
        )
        self._cosigned = Gauge(
            "homefed_ledger_cosigned_size", "Leaves under the newest checkpoint that a home has cosigned.", registry=own
        )
        self._cosignatures = Gauge(
            "homefed_ledger_cosignatures", "Homes that have cosigned that checkpoint.", registry=own
        )
        self._forgotten = Counter(
            "homefed_ledger_lines_deleted", "Lines parts deleted after their retention.", registry=own
        )

    def answered(self, route: str, status: int) -> None:
        self._requests.labels(route, str(status)).inc()

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def accepted(self, kind: str) -> None:
        self._accepted.labels(kind).inc()

    def committed(self, items: int, seconds: float) -> None:
        self._batch.observe(items)
        self._seconds.observe(seconds)

    def signed(self, size: int, time: int) -> None:
        """A checkpoint; `time` since the epoch."""
        self._size.set(size)
        self._time.set(time)

    def cosigned(self, size: int, homes: int) -> None:
        self._cosigned.set(size)
        self._cosignatures.set(homes)

    def forgotten(self, parts: int) -> None:
        self._forgotten.inc(parts)

    def render(self, waiting: int) -> bytes:
        """Text exposition format."""
        self._waiting.set(waiting)
        return generate_latest(self._registry)
