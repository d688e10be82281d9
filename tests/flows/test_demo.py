"""`make demo` from outside: a program that says what it does and leaves nothing behind, also when it is interrupted.

What it shows is tested in test_thread_real.py, by the same story and the same verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.installation import ROOT
from testbed.process import pid_exists


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo on simulated nodes, with a folder of its own for what it writes."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'tests'}", "TMPDIR": str(tmp_path)}
    environment["PYTHONUNBUFFERED"] = "1"
    command = [sys.executable, "-m", "testbed.demo", "--kwok"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as run:
        yield run
        run.kill()


def read_until(run: subprocess.Popen[str], words: str) -> str:
    """What it says up to a line with these words. Fails where it ends before."""
    assert run.stdout is not None
    said = ""
    for line in run.stdout:
        said += line
        if words in line:
            return said
    pytest.fail(f"it ended without {words!r}:\n{said}")


def processes_below(folder: Path) -> set[int]:
    """Those whose command line names a file below the folder."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def test_an_interrupted_demo_takes_everything_down(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    said = read_until(demo, "HomeFed is installed by its chart")
    assert "simulated nodes (kwok), as asked" in said
    running = processes_below(tmp_path)
    assert len(running) > 12
    demo.send_signal(signal.SIGINT)
    assert demo.stdout is not None
    assert "interrupted" in demo.stdout.read()
    assert demo.wait(300) == 130
    deadline = time.monotonic() + 120
    while (left := {pid for pid in running if pid_exists(pid)}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == set()
    assert [path.name for path in tmp_path.glob("homefed-testbed-run-*")] == []


def test_what_cannot_be_done_is_said_with_the_remedy(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'tests'}", "TMPDIR": tempfile.gettempdir()}
    environment |= {"HOMEFED_TESTBED_CACHE": str(tmp_path), "HOMEFED_TESTBED_BIN": str(tmp_path)}
    command = [sys.executable, "-m", "testbed.demo", "--real"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 1
    assert "make testbed" in done.stdout
