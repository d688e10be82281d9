"""The suite as `make test` runs it, on scratch projects: what fails beside others, what fails always, what breaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTBED = Path(__file__).parents[1]
STEADY = "def test_steady(): pass\n"
UNSTEADY = """
import os
class TestIt:
    def test_unsteady(self): assert os.environ.get("PYTEST_XDIST_WORKER") is None, "too early"
"""
FAILING = "def test_failing(): assert False\n"


def suite(folder: Path, *workers: str, **files: str) -> subprocess.CompletedProcess[str]:
    """The suite's answer to a scratch project; `flows__test_a="…"` is tests/flows/test_a.py."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        path = folder / "tests" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(TESTBED)}
    command = [sys.executable, "-m", "testbed.suite", "-q", "-p", "xdist", *workers, "tests"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")} | plain
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_what_fails_beside_others_and_passes_alone_is_green_and_told(tmp_path: Path) -> None:
    done = suite(tmp_path, "-n1", flows__test_a=UNSTEADY, flows__test_b=STEADY, unit__test_c=STEADY)

    assert done.returncode == 0, done.stdout
    first, _, rest = done.stdout.partition("run once more alone:\n")
    assert "AssertionError: too early" in first, "the first failure's text stays"
    assert "1 failed, 2 passed" in first
    alone, _, told = rest.partition("UNSTEADY: failed beside others, passed alone")
    assert "1 passed" in alone, "the file alone, and no other"
    assert "  tests/flows/test_a.py::TestIt::test_unsteady\n" in told


def test_what_fails_twice_is_a_failure(tmp_path: Path) -> None:
    done = suite(tmp_path, flows__test_a=FAILING)

    assert done.returncode == 1
    assert "not passed alone:\n  tests/flows/test_a.py::test_failing\n" in done.stdout
    assert "UNSTEADY" not in done.stdout


@pytest.mark.parametrize("broken", ["import nothing_of_that_name", "import os\ndef test_crash(): os._exit(3)"])
def test_a_broken_collection_or_a_crash_is_not_run_again(tmp_path: Path, broken: str) -> None:
    done = suite(tmp_path, "-n1", flows__test_a=broken)

    assert done.returncode != 0
    assert "once more" not in done.stdout
