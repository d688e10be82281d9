"""The programs of accountants, which our exports are checked with: Debian's hledger, beancount's own bean-check."""

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

from testbed.errors import Unavailable

WITHIN_S = 60


def hledger(journal: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs hledger on this journal alone, without the user's own settings."""
    if (program := shutil.which("hledger")) is None:
        raise Unavailable("hledger is not installed: run `make system` as root")
    command = [program, "--file", str(journal), *arguments]
    environ = {"PATH": "", "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False, env=environ)


def hledger_balances(journal: Path) -> dict[tuple[str, str], int]:
    """Account and commodity → balance, as hledger computes it."""
    done = hledger(journal, "balance", "--flat", "--empty", "--no-total", "--layout=bare", "--output-format=csv")
    if done.returncode:
        raise AssertionError(done.stderr)
    rows = csv.DictReader(io.StringIO(done.stdout))
    return {(row["account"], row["commodity"].strip('"')): int(row["balance"].strip(".")) for row in rows}


def bean_check(text: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "bean-check"), "--no-cache", str(text)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
