"""python -m bench.ledger [--claims N] [--pgledger PATH] [--only NAME …]: the ledger's figures beside their goals.

Every rate is the median of three runs, with the disk's own rates from the same run and folder (TMPDIR). `--claims` is
the size of the books for receipt_ms_p50, audit_s and rss_mib; their goals are set for 1000000, and a smaller number is
said in the table. Exit status 0 when all goals are met, 1 when one is missed, 2 for a wrong argument. The same as JSON
goes to the path in BENCH_JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.figures import Progress, write
from bench.ledger import books, disk, servers
from bench.ledger.inputs import Claims
from testbed.errors import TestbedError
from testbed.postgres import Postgres, postgres
from testbed.workspace import workspace

RUNS: Final = 3
IN_BATCHES: Final = 5000
ONE_BY_ONE: Final = 500
HTTP: Final = 4000
ON_POSTGRES: Final = 3000
BATCH: Final = 100
HTTP_CLIENTS: Final = 32
HTTP_BATCH: Final = 25
POSTGRES_CLIENTS: Final = 8
FULL_SIZE: Final = 1_000_000


@dataclass(frozen=True)
class Goal:
    """None: only measured. `of`: the goal is `limit` times that figure."""

    what: str
    limit: float | None = None
    at_least: bool = True
    of: str = ""

    def text(self, values: dict[str, float]) -> str:
        if self.limit is None:
            return ""
        factor = f" ({self.limit:g} × {self.of})" if self.of else ""
        bound = self.bound(values)
        return "" if bound is None else f"{'≥' if self.at_least else '<'} {bound:g}{factor}"

    def bound(self, values: dict[str, float]) -> float | None:
        if self.limit is None or (self.of and self.of not in values):
            return None
        return round(self.limit * values[self.of], 1) if self.of else self.limit

    def met(self, value: float, values: dict[str, float]) -> bool | None:
        bound = self.bound(values)
        if bound is None:
            return None
        return value >= bound if self.at_least else value < bound


GOALS: Final = {
    "fsync_per_s": Goal("4 KiB written and flushed, one after the other"),
    "raw_sqlite_per_s": Goal("the same bytes and rows into two plain tables, batches of 100, FULL"),
    "sqlite_claims_per_s": Goal(
        "signed bodies to receipts on SQLite, batches of 100, two in flight", 0.8, of="raw_sqlite_per_s"
    ),
    "sqlite_one_by_one_per_s": Goal("the same, each claim in a transaction of its own"),
    "http_claims_per_s": Goal("PUT by 32 clients, one claim each", 4000),
    "http_in_batches_per_s": Goal("POST /v1/batch by 32 clients, 25 claims each"),
    "pgledger_transfers_per_s": Goal("pgledger's transfers by 8 clients on the same PostgreSQL"),
    "postgres_claims_per_s": Goal(
        "signed bodies to receipts on PostgreSQL, 8 clients, one claim each", 3, of="pgledger_transfers_per_s"
    ),
    "postgres_in_batches_per_s": Goal("signed bodies to receipts on PostgreSQL, batches of 100, two in flight"),
    "receipt_ms_p50": Goal("a stored claim's receipt, from its id to the text", 1, at_least=False),
    "audit_s": Goal("homefed audit of everything, 2 jobs", 300, at_least=False),
    "rss_mib": Goal("resident memory of the ledger and its reader after that audit", 250, at_least=False),
}
SIZED: Final = ("receipt_ms_p50", "audit_s", "rss_mib")


@dataclass
class Run:
    claims: int
    pgledger: Path | None
    folder: Path
    say: Progress
    values: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def put(self, name: str, found: Sequence[float], **details: Any) -> None:
        self.values[name] = round(statistics.median(found), 3)
        self.details[name] = {"runs": [round(one, 1) for one in found], **details}
        self.say(f"{name}: {self.values[name]:g}  {self.details[name]}")

    def fresh(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made

    def in_batches(self) -> None:
        flushes, raw, rates, singles, spent = [], [], [], [], []
        for number in range(RUNS):
            folder, stream = self.fresh(f"batches-{number}"), Claims(number)
            rate, single, processor = asyncio.run(_rates(folder, stream))
            rows, body = books.rows_per_claim(folder)
            flushes.append(disk.flushes_per_s(folder))
            raw.append(disk.raw_sqlite_per_s(folder, claims=IN_BATCHES, batch=BATCH, body=body, rows=rows))
            rates.append(rate)
            singles.append(single)
            spent.append(processor)
        self.put("fsync_per_s", flushes)
        self.put("raw_sqlite_per_s", raw, claims=IN_BATCHES, body_bytes=body, small_rows=rows)
        self.put("sqlite_claims_per_s", rates, claims=IN_BATCHES, processor_us_per_claim=[round(one) for one in spent])
        self.put("sqlite_one_by_one_per_s", singles, claims=ONE_BY_ONE)

    def over_http(self) -> None:
        for name, at_once in (("http_claims_per_s", 1), ("http_in_batches_per_s", HTTP_BATCH)):
            rates = [
                servers.http_claims_per_s(
                    self.fresh(f"{name}-{number}"), Claims(number).take(HTTP), HTTP_CLIENTS, at_once
                )
                for number in range(RUNS)
            ]
            self.put(name, rates, claims=HTTP, clients=HTTP_CLIENTS, claims_at_once=at_once)

    def on_postgres(self) -> None:
        with postgres(durable=True) as server:
            asyncio.run(self._on(server))

    async def _on(self, server: Postgres) -> None:
        rates, batches, transfers = [], [], []
        for number in range(RUNS):
            claims = Claims(number).take(ON_POSTGRES)
            folder = self.folder / f"postgres-{number}"
            rates.append(await servers.postgres_claims_per_s(server, folder, claims, POSTGRES_CLIENTS))
            folder = self.folder / f"postgres-batches-{number}"
            batches.append(await servers.postgres_in_batches_per_s(server, folder, claims, BATCH))
            if self.pgledger is not None:
                transfers.append(
                    await servers.pgledger_transfers_per_s(server, self.pgledger, ON_POSTGRES, POSTGRES_CLIENTS)
                )
        self.put("postgres_claims_per_s", rates, claims=ON_POSTGRES, clients=POSTGRES_CLIENTS)
        self.put("postgres_in_batches_per_s", batches, claims=ON_POSTGRES)
        if transfers:
            self.put("pgledger_transfers_per_s", transfers)
        else:
            self.say("pgledger is not compared: give the path of its SQL with --pgledger")

    def at_size(self) -> None:
        folder = self.fresh("size")
        size: dict[str, Any] = {"claims": self.claims}
        if self.claims != FULL_SIZE:
            size["goal_is_for"] = FULL_SIZE
        receipts = asyncio.run(_filled(folder, self.claims, self.say))
        self.put("receipt_ms_p50", receipts, **size)
        (folder / "hub-keys" / "hub.pub").unlink()
        (folder / "hub-keys").rmdir()
        rss, taken = servers.rss_and_audit(folder, jobs=2)
        self.put("audit_s", [taken], **size)
        self.put("rss_mib", [rss], **size)


async def _rates(folder: Path, stream: Claims) -> tuple[float, float, float]:
    async with books.opened(folder) as running:
        rate, processor = await running.rate_in_batches(stream.take(IN_BATCHES), BATCH, in_flight=2)
        single, _ = await running.rate_in_batches(stream.take(ONE_BY_ONE), 1)
    return rate, single, processor


async def _filled(folder: Path, claims: int, say: Progress) -> list[float]:
    stream, done = Claims(), 0
    async with books.opened(folder) as running:
        while done < claims:
            some = stream.take(min(10_000, claims - done))
            await running.rate_in_batches(some, 250)
            done += len(some)
            say(f"{done} of {claims} claims")
        return [await running.receipt_ms(seed) for seed in range(RUNS)]


MEASURES: Final[dict[str, tuple[Callable[[Run], None], tuple[str, ...]]]] = {
    "batches": (Run.in_batches, tuple(GOALS)[:4]),
    "http": (Run.over_http, ("http_claims_per_s", "http_in_batches_per_s")),
    "postgres": (Run.on_postgres, ("pgledger_transfers_per_s", "postgres_claims_per_s", "postgres_in_batches_per_s")),
    "size": (Run.at_size, SIZED),
}


def table(run: Run, wanted: Sequence[str]) -> str:
    rows = [("figure", "value", "goal", "", "what")]
    for name in wanted:
        goal, value = GOALS[name], run.values.get(name)
        met = None if value is None else goal.met(value, run.values)
        verdict = "not measured" if value is None else "" if met is None else "met" if met else "MISSED"
        if name in SIZED and run.claims != FULL_SIZE and value is not None:
            verdict += f" at {run.claims} claims (the goal is for {FULL_SIZE})"
        rows.append((name, "–" if value is None else f"{value:g}", goal.text(run.values), verdict, goal.what))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    )


def document(run: Run, wanted: Sequence[str]) -> dict[str, Any]:
    return {
        **{name: run.values.get(name) for name in wanted},
        "goals": {name: GOALS[name].text(run.values) for name in wanted},
        "missed": missed(run),
        "details": run.details,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": list(os.getloadavg())},
    }


def missed(run: Run) -> list[str]:
    return [name for name, value in run.values.items() if GOALS[name].met(value, run.values) is False]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description="The ledger's figures.")
    parser.add_argument("--claims", type=int, default=20_000, help="size of the books; default 20000")
    parser.add_argument("--pgledger", type=Path, default=None, help="pgledger's SQL: a file, or a folder of them")
    parser.add_argument("--only", nargs="+", choices=tuple(MEASURES), default=list(MEASURES))
    given = parser.parse_args()
    if given.pgledger is not None and not given.pgledger.exists():
        parser.error(f"--pgledger: {given.pgledger} does not exist")
    wanted = [name for measure in given.only for name in MEASURES[measure][1]]
    failed = False
    with workspace(Path(tempfile.gettempdir())) as folder:
        run = Run(given.claims, given.pgledger, folder, Progress())
        for name in given.only:
            try:
                MEASURES[name][0](run)
            except TestbedError as error:
                failed = True  # the other figures are worth having
                run.say(f"{name}: {error}")
    print(table(run, wanted))
    if path := os.environ.get("BENCH_JSON"):
        write(document(run, wanted), Path(path))
    return 1 if failed or missed(run) else 0


if __name__ == "__main__":
    sys.exit(main())
