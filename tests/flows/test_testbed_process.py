"""Supervised children: real ones, of the cheapest kind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.errors import ProcessFailed
from testbed.process import Process, in_netns, pid_exists

TESTS = Path(__file__).parents[1]
Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a shell script as a child, which is killed after the test."""
    started: list[Process] = []

    def start(script: str, env: dict[str, str] | None = None) -> Process:
        process = Process("child", ["/bin/sh", "-c", script], tmp_path / f"child-{len(started)}.log", env=env)
        started.append(process)
        return process.start()

    yield start
    for process in started:
        process.kill()


def gone(pid: int, within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not pid_exists(pid)


def test_output_and_errors_go_to_the_log_and_the_pid_beside_it(start: Start) -> None:
    process = start("echo out; echo err >&2; exit 4")
    assert process.wait(60) == 4
    assert process.log.read_text() == "out\nerr\n"
    assert int(process.log.with_suffix(".pid").read_text()) == process.pid


def test_its_memory_is_known_while_it_lives(start: Start) -> None:
    process = start("exec sleep 60")
    assert 0 < process.rss_mib() < 100
    process.kill()
    assert process.rss_mib() == 0


def test_stopping_asks_first(start: Start) -> None:
    process = start("trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    process.wait_until(lambda: "up" in process.tail(), 60)
    process.stop(60)
    assert process.returncode == 0
    assert "asked" in process.tail()


def test_who_does_not_listen_is_killed_after_the_grace(start: Start) -> None:
    process = start("trap '' TERM; echo up; while :; do sleep 0.05; done")
    process.wait_until(lambda: "up" in process.tail(), 60)
    process.stop(0.2)
    assert process.returncode == -signal.SIGKILL


def test_a_paused_child_can_be_stopped_too(start: Start) -> None:
    process = start("exec sleep 60")
    process.pause()
    process.stop(60)
    assert process.returncode == -signal.SIGTERM


def test_killing_takes_the_childs_own_children_along(start: Start) -> None:
    process = start("sleep 60 & echo $!; wait")
    process.wait_until(lambda: process.log.stat().st_size > 0, 60)
    grandchild = int(process.log.read_text())
    process.kill()
    assert gone(grandchild)


def test_waiting_for_readiness_reports_an_early_end_with_the_log(start: Start) -> None:
    process = start("echo bad flag; exit 2")
    with pytest.raises(ProcessFailed, match=r"(?s)ended with 2 before it was ready.*bad flag"):
        process.wait_until(lambda: False, 60)


def test_waiting_for_readiness_has_a_limit(start: Start) -> None:
    with pytest.raises(ProcessFailed, match=r"was not serving after 0.1 s"):
        start("exec sleep 60").wait_until(lambda: False, 0.1, "serving")


def test_it_cannot_be_started_twice_at_a_time_but_again(start: Start) -> None:
    process = start("echo up; exec sleep 60")
    process.wait_until(lambda: process.log.read_text() == "up\n", 60)
    with pytest.raises(ProcessFailed, match="runs already"):
        process.start()
    first = process.pid
    process.kill()
    process.start()
    assert process.pid != first
    process.wait_until(lambda: process.log.read_text() == "up\nup\n", 60)


def test_the_end_of_the_thread_that_started_it_does_not_matter(start: Start) -> None:
    """The kernel's death signal is tied to the forking thread, which must therefore not be the caller's."""
    started: list[Process] = []
    thread = threading.Thread(target=lambda: started.append(start("exec sleep 60")))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert started[0].alive


def test_a_missing_program_is_an_error_at_once(tmp_path: Path) -> None:
    process = Process("child", [tmp_path / "nothing"], tmp_path / "log")
    assert process.start().wait(60) == 127
    assert "nothing" in process.tail()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_die_with_the_runner(tmp_path: Path, number: int) -> None:
    script = f"""
import pathlib, signal, time
from testbed.process import Process
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
Process("child", ["sleep", "60"], pathlib.Path({str(tmp_path / "child.log")!r})).start()
print("started", flush=True)
time.sleep(60)
"""
    environ = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"started\n"
        child = int((tmp_path / "child.pid").read_text())
        assert pid_exists(child)
        runner.send_signal(number)
        runner.wait(60)
    assert gone(child)


def test_a_network_namespace_is_entered_by_nsenter() -> None:
    assert in_netns(None, ["a", "b"]) == ["a", "b"]
    assert in_netns("home", ["a"]) == ["nsenter", "--net=/run/netns/home", "--", "a"]


def test_a_zombie_does_not_count_as_running() -> None:
    with subprocess.Popen(["true"]) as child:
        assert gone(child.pid)
