"""What the known-truth workload says that it used: each guest's own log, followed in its home from its first line on.

truth = Truth(home, guest_uid, folder).start()
truth.told("cpu_seconds", at)      # at a moment between two lines, or None: at the end of its life
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from testbed.cluster import Cluster
from testbed.errors import TestbedError
from testbed.process import Process

GUESTS: Final = "homefed-guests"
Line = dict[str, Any]


class Truth:
    """The log of one guest, written to a file by `kubectl logs --follow` for as long as it runs."""

    def __init__(self, home: Cluster, guest_uid: str, folder: Path) -> None:
        self.guest_uid = guest_uid
        self.log = folder / f"{home.name}-{guest_uid}.jsonl"
        argv = [str(home.binaries.path("kubectl")), f"--kubeconfig={home.kubeconfig}", "logs", "--follow"]
        argv += [f"--namespace={GUESTS}", f"hf-{guest_uid}"]
        self._process = Process(f"truth of {guest_uid}", argv, self.log, netns=home.netns)

    def start(self) -> Truth:
        """The container must have started, else there is nothing to follow."""
        self._process.start()
        return self

    def stop(self) -> None:
        self._process.kill()

    def lines(self) -> list[Line]:
        """What has been told so far; a line that is still being written is left out."""
        return whole_lines(self.log.read_text(encoding="utf-8") if self.log.exists() else "")

    def has_ended(self) -> bool:
        lines = self.lines()
        return bool(lines) and bool(lines[-1]["final"])

    def told(self, key: str, at: float | None = None) -> float:
        """The truth at a moment (seconds since the epoch), between the two lines around it; None: its last word.

        Raises TestbedError where nothing was told about that moment."""
        lines = self.lines()
        if not lines:
            raise TestbedError(f"guest {self.guest_uid} has told nothing\n{self._process.tail()}")
        if at is None or (lines[-1]["final"] and at >= lines[-1]["wall"]):
            return float(lines[-1][key])
        return told_at(lines, key, at)

    def lived(self, at: float | None = None) -> float:
        """Seconds from its start to a moment."""
        return self.told("elapsed", at)


def whole_lines(text: str) -> list[Line]:
    """The workload's lines in a log, without one that is still being written and without what others wrote."""
    complete = text[: text.rfind("\n") + 1].splitlines()
    return [json.loads(line) for line in complete if line.startswith("{")]


def told_at(lines: list[Line], key: str, wall: float) -> float:
    """By straight line between the two lines around `wall`; before the first line from 0 at the start.

    A container is there, and may be sampled, a moment before its program starts: until then it is 0."""
    first = lines[0]
    origin = {key: 0.0 if key != "mib" else first["mib"], "wall": first["wall"] - first["elapsed"]}
    if wall < origin["wall"]:
        return 0.0
    for before, after in pairwise([origin, *lines]):
        if before["wall"] <= wall <= after["wall"]:
            share = (wall - before["wall"]) / ((after["wall"] - before["wall"]) or 1)
            return float(before[key] + share * (after[key] - before[key]))
    raise TestbedError(f"nothing was told about {wall:.3f}: the last line is of {lines[-1]['wall']:.3f}")
