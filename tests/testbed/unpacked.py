"""Programs of Debian packages that are not installed: the package is fetched and unpacked into the cache.

    program("prometheus2")      Debian's Prometheus, whose service nobody starts

Which ones there are stands in versions.toml, `packages.unpacked`.
"""

import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from testbed.binaries import cache_root, load_versions
from testbed.errors import Unavailable

FETCH_WITHIN_S = 300


def program(name: str) -> Path:
    """The program's absolute path; fetched when it is not there. Raises Unavailable, saying why it cannot be had."""
    entry = _entries()[name]
    folder = cache_root() / f"debian-{name}-{_release()}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".debian-{name}-") as work:
            _unpack(entry["package"], Path(work))
            _appear(Path(work) / "root", folder)
    return folder / str(entry["path"])


def all_programs() -> list[Path]:
    """Every one of them."""
    return [program(name) for name in _entries()]


def _entries() -> dict[str, Any]:
    entries: dict[str, Any] = load_versions()["packages"]["unpacked"]
    return entries


def _release() -> str:
    """Distribution, version and machine: another Debian has another version of the package."""
    try:
        known = platform.freedesktop_os_release()
    except OSError:
        known = {}
    return f"{known.get('ID', 'unknown')}-{known.get('VERSION_ID', 'rolling')}-{platform.machine()}"


def _unpack(package: str, work: Path) -> None:
    if shutil.which("apt-get") is None:
        raise Unavailable(f"Debian's package {package} cannot be fetched: there is no apt-get")
    work.chmod(0o755)  # apt fetches as a user of its own
    try:
        _run(["apt-get", "download", "-qq", package], work)
    except subprocess.CalledProcessError:
        _run(["apt-get", "update", "-qq"], work, check=False)  # needs root; without it the lists may still do
        try:
            _run(["apt-get", "download", "-qq", package], work)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"Debian's package {package} cannot be fetched: {error.stderr[-500:]}") from error
    (file,) = work.glob("*.deb")
    _run(["dpkg-deb", "--extract", str(file), str(work / "root")], work)


def _run(command: list[str], folder: Path, *, check: bool = True) -> None:
    subprocess.run(command, cwd=folder, check=check, capture_output=True, text=True, timeout=FETCH_WITHIN_S)


def _appear(made: Path, destination: Path) -> None:
    try:
        made.rename(destination)
    except OSError:
        if not destination.exists():  # or somebody else was faster
            raise
