"""OpenZeppelin's own library, which our payout trees are checked with: installed once from a lock, beside the programs.

Node and npm come from the machine, else from Debian (`python -m testbed.system`).

    python -m testbed.javascript        with PYTHONPATH=tests
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from testbed.binaries import cache_root
from testbed.errors import BuildFailed, TestbedError, Unavailable

SOURCES = Path(__file__).parent / "npm"
INSTALL_WITHIN_S = 300
CHECK_WITHIN_S = 60


def installed() -> Path:
    """The folder with the checking script and its modules; installed when it is not there, whole or not at all."""
    sources = sorted(path for path in SOURCES.iterdir() if path.is_file())
    key = hashlib.sha256(b"".join(f"\0{path.name}\0".encode() + path.read_bytes() for path in sources)).hexdigest()
    destination = cache_root() / f"javascript-{key[:16]}"
    if not destination.exists():
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".javascript-") as work:
            _install(Path(work) / "check", sources)
            _appear(Path(work) / "check", destination)
    return destination


def check_tree(tree: Path) -> dict[str, Any]:
    """What OpenZeppelin's library says of a dumped tree: see check-tree.js. Raises BuildFailed where it refuses it."""
    command = [_program("node"), str(installed() / "check-tree.js"), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_WITHIN_S, check=False)
    if done.returncode:
        raise BuildFailed(f"check-tree.js: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _install(folder: Path, sources: list[Path]) -> None:
    folder.mkdir()
    for path in sources:
        shutil.copy(path, folder)
    command = [_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_WITHIN_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise BuildFailed(f"npm ci: {done.stderr[-2000:]}")


def _appear(made: Path, destination: Path) -> None:
    try:
        made.rename(destination)
    except OSError:
        if not destination.exists():  # or somebody else was faster
            raise


def _program(name: str) -> str:
    if found := shutil.which(name):
        return found
    raise Unavailable(f"{name} is not installed: run `make system` as root, or install Node.js your way")


def main() -> int:
    """Installs and says where; exit status 1 with a message when it cannot."""
    try:
        print(f"{'javascript':18} {installed()}")
    except (TestbedError, subprocess.SubprocessError, OSError) as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
