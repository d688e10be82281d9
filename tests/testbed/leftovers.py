"""What a run of the testbed makes outside of its own processes, and its removal, whichever way the run ends.

Network namespaces, a bridge, cgroups and container file systems outlive the process that made them. So a run first
writes down who it is (pid and start time, because pids come again); the names of all that it makes derive from its id.
It is removed by `Run.close`; by a watchdog, when a run is killed; or by the next run, should both have been killed.
Only what belongs to a dead process is ever removed by others.

    python -m testbed.leftovers           removes what dead runs have left (needs root)
"""

import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.errors import TestbedError, Unavailable

RECORDS = Path("/run/homefed-testbed")
PREFIX = "hf"
REMOVAL_WITHIN_S = 60.0
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_counter = itertools.count()


@dataclass(frozen=True)
class Record:
    """One run: its id (part of every name), its owner and the folder of its bulky files."""

    id: str
    pid: int
    started: int
    scratch: str

    def path(self) -> Path:
        return RECORDS / f"{self.id}.json"

    def owner_is_alive(self) -> bool:
        return start_time(self.pid) == self.started


class Run:
    """The names of one run, and their end. Needs root. Make it with `Run.open`."""

    def __init__(self, record: Record, watchdog: "subprocess.Popen[bytes]") -> None:
        self.record = record
        self._watchdog = watchdog

    @classmethod
    def open(cls) -> "Run":
        """Sweeps what dead runs have left, writes this one down, sets its watchdog. Raises Unavailable without root."""
        if os.geteuid() != 0:
            raise Unavailable("homes with real nodes need root (network namespaces, mounts, cgroups): run as root")
        RECORDS.mkdir(mode=0o700, exist_ok=True)
        sweep()
        record = _new_record()
        record.path().write_text(json.dumps(asdict(record)))
        Path(record.scratch).mkdir(mode=0o711)
        return cls(record, _watch(record))

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def scratch(self) -> Path:
        """For what is too large to be kept: container file systems. Gone with the run."""
        return Path(self.record.scratch)

    @property
    def bridge(self) -> str:
        return f"{PREFIX}b-{self.id}"

    def name(self, part: str) -> str:
        """The name of a network namespace or cgroup of this run."""
        return f"{PREFIX}-{self.id}-{part}"

    def link(self, number: int) -> str:
        """The name of a link in the root namespace (at most 15 characters)."""
        return f"{PREFIX}l-{self.id}-{number}"

    def close(self) -> None:
        """Removes all that bears this run's names. Raises TestbedError naming what could not be removed."""
        self._watchdog.kill()
        self._watchdog.wait()
        remove(self.record)


def sweep() -> list[str]:
    """Removes what runs of dead owners have left; their ids."""
    dead = [record for record in records() if not record.owner_is_alive()]
    for record in dead:
        remove(record)
    return [record.id for record in dead]


def records() -> list[Record]:
    """The runs that are written down, dead or alive."""
    found = []
    for path in sorted(RECORDS.glob("*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):  # being written, or removed by another run
            found.append(Record(**json.loads(path.read_text())))
    return found


def remains(run_id: str) -> list[str]:
    """What there is of a run now: namespaces, links, cgroups, files. Empty after a clean end."""
    found = [f"network namespace {name}" for name in _namespaces(run_id)]
    found += [f"link {name}" for name in _links(run_id)]
    found += [f"cgroup {path}" for path in cgroups(run_id)]
    found += [f"file {path}" for path in (RECORDS / f"{run_id}.json", _scratch(run_id)) if path.exists()]
    return found


def remove(record: Record) -> None:
    """Ends what still runs in a run's cgroups and namespaces and removes all that bears its names. Idempotent; two
    removers do not disturb each other. Raises TestbedError naming what is left after 10 s."""
    deadline = time.monotonic() + REMOVAL_WITHIN_S
    while True:
        with _locked(record.id):
            _remove_once(record)
        left = remains(record.id)
        if not left:
            return
        if time.monotonic() > deadline:
            raise TestbedError(f"cannot be removed: {', '.join(left)}")
        time.sleep(0.1)  # killed processes still leave their cgroups and namespaces


def _remove_once(record: Record) -> None:
    for pid in _members(record.id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in cgroups(record.id):
        remove_cgroup(path)
    for name in _namespaces(record.id):
        _ip("netns", "delete", name)
    for name in _links(record.id):
        _ip("link", "delete", name)
    shutil.rmtree(record.scratch, ignore_errors=True)
    if not Path(record.scratch).exists():
        record.path().unlink(missing_ok=True)


def _members(run_id: str) -> set[int]:
    """Processes in the run's cgroups and network namespaces."""
    pids = {pid for root in cgroups(run_id) for pid in _pids_below(root)}
    for name in _namespaces(run_id):
        pids.update(int(pid) for pid in _ip("netns", "pids", name).split())
    return pids - {os.getpid()}


def _pids_below(cgroup: Path) -> Iterator[int]:
    for folder, _, _ in os.walk(cgroup):
        with contextlib.suppress(OSError):
            yield from (int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split())


# --- cgroups


def hierarchies() -> dict[str, Path]:
    """Where cgroups are mounted: controller (or `unified` for version 2) → folder."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            found["unified"] = Path(before.split()[4])
        elif kind == "cgroup":
            found[options.removeprefix("rw,")] = Path(before.split()[4])
    return found


def cgroups(run_id: str) -> list[Path]:
    """The run's cgroups, in every hierarchy."""
    return [path for folder in hierarchies().values() for path in sorted(folder.glob(f"{PREFIX}-{run_id}-*"))]


def remove_cgroup(path: Path) -> None:
    """Removes a cgroup and those in it, as far as no process is left in them."""
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


# --- names


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with its pid an identity. None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _new_record() -> Record:
    pid, started = os.getpid(), start_time(os.getpid())
    assert started is not None
    run_id = f"{_base36(pid).rjust(5, '0')}{_base36(next(_counter))}"
    return Record(run_id, pid, started, str(_scratch(run_id)))


def _scratch(run_id: str) -> Path:
    return Path(tempfile.gettempdir()) / f"homefed-testbed-{run_id}"


def _base36(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def _namespaces(run_id: str) -> list[str]:
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.glob(f"{PREFIX}-{run_id}-*")) if folder.exists() else []


def _links(run_id: str) -> list[str]:
    names = sorted(path.name for path in Path("/sys/class/net").iterdir())
    return [name for name in names if name == f"{PREFIX}b-{run_id}" or name.startswith(f"{PREFIX}l-{run_id}-")]


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=120).stdout


@contextlib.contextmanager
def _locked(run_id: str) -> Iterator[None]:
    with (RECORDS / f"{run_id}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        (RECORDS / f"{run_id}.lock").unlink(missing_ok=True)


# --- the watchdog


def _watch(record: Record) -> "subprocess.Popen[bytes]":
    """A process of its own session, so that neither Ctrl-C nor the killing of a process group reaches it."""
    command = [sys.executable, "-S", "-m", "testbed.leftovers", "--watch", str(record.path())]
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PATH": os.environ.get("PATH", os.defpath)}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/", start_new_session=True
    )


def watch(path: Path) -> None:
    """Waits for the end of a run's owner, then removes what it left (nothing, if it closed properly)."""
    record = Record(**json.loads(path.read_text()))
    try:
        owner = os.pidfd_open(record.pid)
    except ProcessLookupError:
        owner = None
    if owner is not None and record.owner_is_alive():
        select.select([owner], [], [])
    if path.exists():
        remove(record)


def main(arguments: list[str]) -> int:
    """Sweeps once; with `--watch RECORD` waits for that run's end first."""
    if arguments[:1] == ["--watch"]:
        watch(Path(arguments[1]))
        return 0
    for run_id in sweep() if RECORDS.exists() else []:
        print(f"testbed: removed what run {run_id} had left")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
