"""Where the testbed's programs are, and how they are built.

`make testbed` builds them from Go modules, whose versions stand in versions.toml. Each artefact has a cache folder of
its own, outside the repository and named by the hash of its inputs, so that changing one version rebuilds one artefact.
A folder appears by an atomic rename, under a file lock: an interrupted build leaves nothing half-made (and the Go build
cache lets the next one go on where it stopped), and two builders do not race.

    python -m testbed.binaries [--only NAME ...]        with PYTHONPATH=tests
"""

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import BuildFailed, TestbedError, Unavailable
from testbed.process import mortal

HERE = Path(__file__).parent
VERSIONS = HERE / "versions.toml"
RECIPE = 1  # raise it when the way of building changes without any other input changing
OVERRIDES = ("HOMEFED_TESTBED_BIN", "KUBEBUILDER_ASSETS")
REPORT_EVERY_S = 15.0


@dataclass(frozen=True)
class Artefact:
    """One thing to build: a module of ours (`module`), or packages of a published one (`packages` at `version`)."""

    name: str
    programs: tuple[str, ...]
    module: Path | None
    packages: tuple[str, ...]
    version: str
    tags: tuple[str, ...]
    rename: Mapping[str, str]
    inputs: Mapping[str, Any]

    def key(self) -> str:
        """Hash of the inputs, 16 hex digits. The Go toolchain is left out on purpose: a patch release of it is no
        reason to build for ten minutes, and a machine without Go can use a cache that is there."""
        digest = hashlib.sha256()
        recipe = {"recipe": RECIPE, "os": sys.platform, "machine": platform.machine(), "inputs": self.inputs}
        digest.update(json.dumps(recipe, sort_keys=True).encode())
        if self.module is not None:
            for path in sorted(p for p in self.module.iterdir() if p.suffix in {".go", ".mod", ".sum"}):
                digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:16]


def load_versions(path: Path = VERSIONS) -> dict[str, Any]:
    """versions.toml as a dict of tables."""
    with path.open("rb") as file:
        return tomllib.load(file)


def load_artefacts(path: Path = VERSIONS) -> tuple[Artefact, ...]:
    """The artefacts of versions.toml, in its order, which is the order of building."""
    return tuple(
        _artefact(name, table, path.parent) for name, table in load_versions(path).items() if "programs" in table
    )


def _artefact(name: str, table: Mapping[str, Any], root: Path) -> Artefact:
    return Artefact(
        name=name,
        programs=tuple(table["programs"]),
        module=root / table["module"] if "module" in table else None,
        packages=tuple(table.get("packages", ())),
        version=table.get("version", ""),
        tags=tuple(table.get("tags", ())),
        rename=table.get("rename", {}),
        inputs=table,
    )


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """$HOMEFED_TESTBED_CACHE, else the user's cache folder."""
    if own := environ.get("HOMEFED_TESTBED_CACHE"):
        return Path(own)
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "homefed-testbed"


class Binaries:
    """Looks programs up by name: own folders (HOMEFED_TESTBED_BIN, KUBEBUILDER_ASSETS) first, then the cache, then,
    for what no artefact provides (kubectl, nsenter, containerd), the PATH."""

    def __init__(self, artefacts: Sequence[Artefact] | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self.artefacts = tuple(load_artefacts() if artefacts is None else artefacts)
        self.cache = cache_root(environ)
        self.overrides = tuple(Path(environ[name]) for name in OVERRIDES if environ.get(name))
        self._search_path = environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"

    def path(self, program: str) -> Path:
        """The program's absolute path. Raises Unavailable, saying how to get it."""
        for folder in self.overrides:
            if os.access(folder / program, os.X_OK):
                return folder / program
        for artefact in self.artefacts:
            if program in artefact.programs:
                return self._cached(artefact, program)
        if found := shutil.which(program, path=self._search_path):
            return Path(found)
        raise Unavailable(f"{program} is not installed: run `make testbed` (as root it installs what Debian packages)")

    def folder(self, artefact: Artefact) -> Path:
        """Where this artefact's programs are, once built."""
        return self.cache / f"{artefact.name}-{artefact.key()}"

    def missing(self) -> list[Artefact]:
        """Artefacts that are neither in the cache nor wholly provided by own folders."""
        return [artefact for artefact in self.artefacts if not all(map(self._have, artefact.programs))]

    def _have(self, program: str) -> bool:
        try:
            self.path(program)
        except Unavailable:
            return False
        return True

    def _cached(self, artefact: Artefact, program: str) -> Path:
        path = self.folder(artefact) / program
        if path.exists():
            return path
        raise Unavailable(
            f"{program} is not built: run `make testbed`, or point {OVERRIDES[0]} at a folder that has it"
        )


def build(artefact: Artefact, destination: Path) -> None:
    """Builds one artefact into `destination`, a folder that appears whole or not at all. Does nothing when it is there.

    Raises BuildFailed with the log's tail, Unavailable without a Go toolchain."""
    if shutil.which("go") is None:
        raise Unavailable(f"go is not installed, and {artefact.name} is not in the cache: install Go 1.26 or later")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _locked(destination.parent / f"{artefact.name}.lock"):
        if destination.exists():
            return
        for left in destination.parent.glob(f".{artefact.name}-*"):  # by a builder that was killed: we hold its lock
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{artefact.name}-") as work:
            output = Path(work) / "bin"
            output.mkdir()
            _compile(artefact, output)
            _arrange(artefact, output)
            output.rename(destination)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(artefact: Artefact, output: Path) -> None:
    environ = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(["-s -w", *_version_flags(artefact)])]
    if artefact.tags:
        flags += ["-tags", ",".join(artefact.tags)]
    if artefact.module is not None:
        _run(artefact.name, ["go", "build", *flags, "-o", str(output / artefact.name), "."], artefact.module, environ)
        return
    # `go install` from outside any module, with its own GOBIN: the published go.mod decides every dependency.
    targets = [f"{package}@{artefact.version}" for package in artefact.packages]
    _run(artefact.name, ["go", "install", *flags, *targets], output, environ | {"GOBIN": str(output)})


def _version_flags(artefact: Artefact) -> list[str]:
    """Kubernetes must know its version, or a chart's `kubeVersion` fails."""
    if not (version := artefact.inputs.get("kubernetes")):
        return []
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return [f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items()]


def _arrange(artefact: Artefact, output: Path) -> None:
    """Gives the built programs the names that the table promises: links to a multi-call binary, or renames."""
    for program in artefact.programs if artefact.module else ():
        if not (output / program).exists():
            (output / program).symlink_to(artefact.name)
    for old, new in artefact.rename.items():
        (output / old).rename(output / new)
    if absent := [program for program in artefact.programs if not (output / program).exists()]:
        raise BuildFailed(f"{artefact.name}: built, but without {', '.join(absent)}")


def _run(name: str, command: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    """Runs a build with a line of progress every 15 seconds; it ends with us, should we be killed."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(mortal(command), cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            while True:
                try:
                    child.wait(REPORT_EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    _say(name, f"building, {time.monotonic() - started:.0f} s")
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
        if child.returncode:
            log.seek(0)
            raise BuildFailed(f"{name}: `{' '.join(command[:2])}` ended with {child.returncode}\n{log.read()[-4000:]}")


def _say(name: str, text: str) -> None:
    print(f"testbed: {name}: {text}", file=sys.stderr, flush=True)


def ensure(binaries: Binaries, only: Sequence[str] = ()) -> None:
    """Builds what is missing (of `only`, names of artefacts or programs, when given), in order."""
    known = {name for artefact in binaries.artefacts for name in (artefact.name, *artefact.programs)}
    if unknown := set(only) - known:
        there = ", ".join(sorted(known))
        raise TestbedError(f"{', '.join(sorted(unknown))}: no such artefact or program, there are {there}")
    for artefact in binaries.missing():
        if only and artefact.name not in only and not set(only) & set(artefact.programs):
            continue
        started = time.monotonic()
        _say(artefact.name, "building")
        folder = binaries.folder(artefact)
        build(artefact, folder)
        size = sum(path.stat().st_size for path in folder.iterdir() if not path.is_symlink())
        _say(artefact.name, f"built in {time.monotonic() - started:.0f} s, {size / 1e6:.0f} MB")


def main() -> int:
    """Builds and lists the programs; exit status 1 with a message when one cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m testbed.binaries", description="Build the testbed's programs.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="artefacts or programs of versions.toml")
    arguments = parser.parse_args()
    binaries = Binaries()
    try:
        ensure(binaries, arguments.only)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    if not arguments.only:
        for artefact in binaries.artefacts:
            print(f"{artefact.name:18} {binaries.path(artefact.programs[0]).parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
