"""Child processes that never outlive the test run, whichever way it ends.

Each child is started by `setpriv --pdeathsig KILL`, so that the kernel kills it when its parent is gone: a test runner
that is itself killed leaves nothing behind. That signal is tied to the *thread* that forked, so every child is forked
by one thread that lives as long as the process does. `setpriv` rather than a `preexec_fn`, which is not safe with
threads.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

from testbed.errors import ProcessFailed

TAIL_BYTES = 3000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class _Forker:
    """The thread that forks."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._jobs = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    def call(self, fork: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="testbed-forker", daemon=True)
                self._thread.start()
        future: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((fork, future))
        return future.result()

    def _run(self) -> None:
        while True:
            fork, future = self._jobs.get()
            try:
                future.set_result(fork())
            except OSError as error:
                future.set_exception(error)


_forker = _Forker()


class Process:
    """One supervised child: own session, standard output and error in a log file, the pid in a file beside it.

    `netns` is the name of a network namespace (as `ip netns` lists it) in which it runs. Not thread-safe; different
    Processes may be used from different threads."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        netns: str | None = None,
    ) -> None:
        self.name = name
        self.argv = [str(argument) for argument in argv]
        self.log = log
        self.netns = netns
        self._env = env
        self._cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> "Process":
        """Starts the child. The log goes on where an earlier start left it. Raises ProcessFailed if it runs already."""
        if self.alive:
            raise ProcessFailed(f"{self.name} runs already, as process {self.pid}")
        command = mortal(in_netns(self.netns, self.argv))
        with self.log.open("ab") as log:
            self._child = _forker.call(
                lambda: subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=None if self._env is None else dict(self._env),
                    cwd=self._cwd,
                    start_new_session=True,
                )
            )
        self.log.with_suffix(".pid").write_text(f"{self._child.pid}\n")
        return self

    @property
    def pid(self) -> int:
        """Raises ProcessFailed if it was never started."""
        if self._child is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """None while it runs; −N when signal N ended it."""
        return None if self._child is None else self._child.poll()

    def signal(self, number: int) -> None:
        """Sends a signal to the child's whole process group. Nothing happens when it has ended."""
        if self.alive:
            os.killpg(self.pid, number)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self.signal(signal.SIGKILL)
        self._reap(10.0)

    def stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM, after the grace SIGKILL; waits for the end."""
        self.signal(signal.SIGTERM)
        self.resume()
        try:
            self._reap(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def wait(self, timeout_s: float) -> int:
        """Waits for the end; its return code. Raises ProcessFailed when it still runs after the time."""
        try:
            self._reap(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self.name} still runs after {timeout_s} s\n{self.tail()}") from None
        assert self._child is not None
        return int(self._child.returncode)

    def wait_until(self, ready: Callable[[], bool], timeout_s: float, what: str = "ready") -> None:
        """Polls `ready`. Raises ProcessFailed with the log's tail when the child ends, or is not ready in time."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive:
                raise ProcessFailed(f"{self.name} ended with {self.returncode} before it was {what}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} was not {what} after {timeout_s} s\n{self.tail()}")
            time.sleep(0.05)

    def rss_mib(self) -> float:
        """Resident memory of the child itself in MiB (without its own children); 0 once it has ended."""
        try:
            resident = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return 0.0
        return int(resident) * PAGE_KIB / 1024

    def cpu_seconds(self) -> float:
        """Processor time of the child itself since its start; 0 once it has ended."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def tail(self, size: int = TAIL_BYTES) -> str:
        """The end of the log."""
        text = self.log.read_bytes()[-size:].decode(errors="replace") if self.log.exists() else ""
        return f"--- {self.log}\n{text}"

    def _reap(self, timeout_s: float) -> None:
        if self._child is not None:
            self._child.wait(timeout_s)


def mortal(argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` so that the kernel kills it when its parent (this process) dies. The shell between
    looks whether the parent is still there, for it may have died before the death signal was set."""
    still_there = '[ "$PPID" = "$0" ] && exec "$@"'
    return ["setpriv", "--pdeathsig", "KILL", "--", "/bin/sh", "-c", still_there, str(os.getpid()), *argv]


def in_netns(netns: str | None, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` in a network namespace. `nsenter`, not `ip netns exec`: that remounts /sys, after
    which a kubelet finds no cgroups. nsenter does not fork here, so the pid stays."""
    return list(argv) if netns is None else ["nsenter", f"--net=/run/netns/{netns}", "--", *argv]


def pid_exists(pid: int) -> bool:
    """Whether a process of that id exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}
