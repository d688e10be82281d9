"""The Debian packages of the testbed: those of a real node, what builds its images, what checks our exports.

As root on Debian or a relative of it the missing ones are installed; otherwise a message says what to install. It is no
error: control planes and simulated nodes need none of them, and the tier with real nodes fails by itself.

    python -m testbed.system        with PYTHONPATH=tests

Programs of packages that must not be installed are unpacked into the cache: see `testbed.unpacked`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

from testbed import unpacked
from testbed.binaries import load_versions
from testbed.errors import Unavailable

INSTALL_WITHIN_S = 900


def wanted() -> list[str]:
    """The packages of versions.toml; those with a program of their own only where the PATH does not have it."""
    packages = load_versions()["packages"]
    absent = [package for program, package in packages["for_programs"].items() if not shutil.which(program)]
    return [*packages["debian"], *absent]


def missing(packages: Iterable[str]) -> list[str]:
    """Those that are not installed. Raises Unavailable where there is no dpkg."""
    if shutil.which("dpkg-query") is None:
        raise Unavailable("this is no Debian or relative of it: install " + ", ".join(packages) + " your system's way")
    return [package for package in packages if not _is_installed(package)]


def _is_installed(package: str) -> bool:
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout == "installed"


def install(packages: Sequence[str], run: Callable[[Sequence[str]], None]) -> None:
    """Installs with apt-get. The lists are fetched only where installing without does not work."""
    command = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *packages]
    try:
        run(command)
    except subprocess.CalledProcessError:
        run(["apt-get", "update", "-qq"])
        run(command)


def _apt_get(command: Sequence[str]) -> None:
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, env=environ, check=True, timeout=INSTALL_WITHIN_S, stdout=subprocess.DEVNULL)


def ensure(packages: Sequence[str], *, root: bool, run: Callable[[Sequence[str]], None] = _apt_get) -> list[str]:
    """Installs those that are missing; returns them. Raises Unavailable when it may not or cannot."""
    if not (absent := missing(packages)):
        return []
    remedy = f"as root: apt-get install {' '.join(absent)}"
    if not root:
        raise Unavailable(f"{len(absent)} Debian packages are missing. Install them {remedy}")
    print(f"testbed: installing {' '.join(absent)}", file=sys.stderr, flush=True)
    try:
        install(absent, run)
    except (subprocess.SubprocessError, OSError) as error:
        raise Unavailable(f"apt-get failed ({error}). Install them by hand, {remedy}") from error
    return absent


def main() -> int:
    """Installs, or says what is missing; always exit status 0."""
    try:
        ensure(wanted(), root=os.geteuid() == 0)
    except Unavailable as error:
        print(f"testbed: homes with real nodes cannot run here: {error}", file=sys.stderr)
    try:
        unpacked.all_programs()
    except Unavailable as error:
        print(f"testbed: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
