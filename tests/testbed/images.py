"""Container images as tars, made without a container engine.

A home of the testbed runs pods from images that no registry holds. Each is written here as a docker-archive (one tar of
configuration, layers and manifest), which `ctr images import`, `docker load` and `kind load image-archive` all read.

The operator's image follows the Dockerfile at the repository's root (see recipe.py); its base is made of Debian
packages, not pulled. Layers are cached by the hash of their inputs: a new source file costs the smallest layer only.
"""

import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from testbed.archive import Layer, digest_of_file, digest_of_tree, pack_layer, write_archive
from testbed.binaries import cache_root
from testbed.errors import BuildFailed, Unavailable
from testbed.recipe import ROOT, Recipe, image_config, read_recipe

WORKLOAD = Path(__file__).resolve().parent / "workload"

IMAGES = {
    "operator": "homefed:testbed",
    "workload": "homefed-workload:testbed",
    "root-workload": "homefed-workload:wants-root",
    "prometheus": "homefed-testbed/prometheus:testbed",
    "coredns": "homefed-testbed/coredns:testbed",
    "pause": "homefed-testbed/pause:testbed",
}
"""Image name by role: what a pod of the testbed names, with pull policy Never or IfNotPresent."""

FORMAT = "3"  # part of every cache key: raise it when the way layers are made changes
KEPT_ARCHIVES = 3  # per image; older ones of changed sources are removed
C_FLAGS = ["-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
SHELL_APPLETS = (
    "sh cat cp date df echo env false grep head httpd id ls mkdir nc nslookup printenv rm seq sleep tail touch true"
)
WORKLOAD_USER = "65531:65531"

Parts = tuple[list[Layer], dict[str, object]]
"""An image's layers, lowest first, and the runtime part of its configuration."""


class ProgramPaths(Protocol):
    """Where a built program lies (testbed.binaries.Binaries)."""

    def path(self, program: str) -> Path: ...


class Images:
    """Makes the images of IMAGES and says where their archives lie."""

    def __init__(self, programs: ProgramPaths, cache: Path | None = None, *, quiet: bool = False) -> None:
        self._programs = programs
        self._cache = (cache or cache_root()) / "images"
        self._quiet = quiet

    def archive(self, role: str) -> Path:
        """The docker-archive of IMAGES[role], made now if its inputs changed. Raises BuildFailed, Unavailable."""
        makers: dict[str, Callable[[], Parts]] = {
            "operator": self._operator,
            "workload": lambda: self._workload(WORKLOAD_USER),
            "root-workload": lambda: self._workload("0"),
            "pause": self._pause,
            "prometheus": lambda: self._static("prometheus", "65534:65534"),
            "coredns": lambda: self._static("coredns", "65532:65532"),
        }
        self._cache.mkdir(parents=True, exist_ok=True)
        with _locked(self._cache / f"{role}.lock"):
            return self._archive(role, *makers[role]())

    def program(self, source: str) -> Path:
        """The static program compiled from workload/<source>.c (pause is also process 1 of a node)."""
        self._cache.mkdir(parents=True, exist_ok=True)
        code = (WORKLOAD / f"{source}.c").read_bytes()
        target = self._cache / f"program-{source}-{self._key(code, *map(str.encode, C_FLAGS))}"
        if not target.exists():
            partial = Path(tempfile.mkdtemp(dir=self._cache)) / source
            _run("gcc", *C_FLAGS, "-o", str(partial), str(WORKLOAD / f"{source}.c"))
            partial.rename(target)
            partial.parent.rmdir()
        return target

    def _archive(self, role: str, layers: list[Layer], config: dict[str, object]) -> Path:
        key = self._key(
            *(layer.digest.encode() for layer in layers),
            json.dumps(config, sort_keys=True).encode(),
            IMAGES[role].encode(),
        )
        tar = self._cache / f"archive-{role}-{key}.tar"
        if not tar.exists():
            self._say(f"writing {IMAGES[role]}")
            write_archive(tar, IMAGES[role], layers, config)
            self._prune(f"archive-{role}-*.tar")
        tar.touch()
        return tar

    def _prune(self, pattern: str) -> None:
        newest_first = sorted(self._cache.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in newest_first[KEPT_ARCHIVES:]:
            path.unlink(missing_ok=True)

    def _layer(self, name: str, key: str, fill: Callable[[Path], Path]) -> Layer:
        """The cached layer, or a new one of the folder that `fill` returns; `fill` gets an empty folder to work in."""
        tar = self._cache / f"layer-{name}-{key}.tar"
        digest = tar.with_suffix(".sha256")
        if not (tar.exists() and digest.exists()):
            self._say(f"making layer {name}")
            with tempfile.TemporaryDirectory(dir=self._cache, prefix="stage-") as stage:
                layer = pack_layer(fill(Path(stage)), tar)
            digest.write_text(layer.digest)
            self._prune(f"layer-{name}-*.tar")
        tar.touch()
        return Layer(tar, digest.read_text())

    def _pause(self) -> Parts:
        layer = self._files("pause", {"pause": self.program("pause")})
        return [layer], {"User": "65535:65535", "Entrypoint": ["/pause"]}

    def _static(self, program: str, user: str) -> Parts:
        layer = self._files(program, {f"bin/{program}": self._programs.path(program)})
        return [layer], {"User": user, "Entrypoint": [f"/bin/{program}"], "Env": ["PATH=/bin"], "WorkingDir": "/"}

    def _workload(self, user: str) -> Parts:
        busybox = shutil.which("busybox")
        if busybox is None:
            raise Unavailable("busybox is not installed: run `make system` as root")
        files = {"workload": self.program("workload"), "bin/busybox": Path(busybox)}
        layer = self._files("workload", files, links={f"bin/{applet}": "busybox" for applet in SHELL_APPLETS.split()})
        config: dict[str, object] = {"User": user, "Entrypoint": ["/workload"], "WorkingDir": "/tmp"}
        return [layer], config | {"Env": ["PATH=/:/bin"]}

    def _files(self, name: str, files: dict[str, Path], links: dict[str, str] | None = None) -> Layer:
        links = links or {}
        contents = [f"{place}={digest_of_file(path)}".encode() for place, path in sorted(files.items())]

        def fill(stage: Path) -> Path:
            for place, path in files.items():
                (stage / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, stage / place)
                (stage / place).chmod(0o755)
            for place, target in links.items():
                (stage / place).symlink_to(target)
            (stage / "tmp").mkdir()
            (stage / "tmp").chmod(0o1777)
            return stage

        return self._layer(name, self._key(*contents, json.dumps(links).encode()), fill)

    # --- the operator's: base (Debian's Python), dependencies (the lock file), source ---

    def _operator(self) -> Parts:
        recipe = read_recipe()
        base = self._base_root(recipe)
        base_key = base.parent.name.encode()
        requirements = ROOT / recipe.requirements
        wheels_key = self._key(base_key, requirements.read_bytes())
        layers = [
            self._layer("base", self._key(base_key), lambda _: base),
            self._layer("requirements", wheels_key, lambda stage: _install(stage, base, recipe)),
            *(self._source_layer(base, place, target) for place, target in recipe.copies.items()),
        ]
        return layers, image_config(recipe)

    def _source_layer(self, base: Path, place: str, target: str) -> Layer:
        def fill(stage: Path) -> Path:
            copied = stage / "layer" / target.lstrip("/")
            shutil.copytree(ROOT / place, copied, ignore=shutil.ignore_patterns("__pycache__"))
            _compile(base, stage, target)
            return stage / "layer"

        key = self._key(digest_of_tree(ROOT / place).encode(), target.encode(), base.parent.name.encode())
        return self._layer("source", key, fill)

    def _base_root(self, recipe: Recipe) -> Path:
        """A root file system with Python and its standard library, as Debian packages it."""
        packages = ["python3-minimal", "libpython3-stdlib", f"python{recipe.python}"]
        home = self._cache / f"base-{self._key(recipe.suite.encode(), *map(str.encode, packages))}"
        if not home.exists():
            self._say(f"unpacking {recipe.suite}'s Python {recipe.python}")
            with tempfile.TemporaryDirectory(dir=self._cache, prefix="stage-") as folder:
                _unpack_base(Path(folder) / "new" / "root", recipe, packages)
                (Path(folder) / "new").rename(home)
        return home / "root"

    def _key(self, *parts: bytes) -> str:
        return hashlib.sha256(b"\0".join((FORMAT.encode(), platform.machine().encode(), *parts))).hexdigest()[:16]

    def _say(self, what: str) -> None:
        if not self._quiet:
            print(f"testbed: {what}", file=sys.stderr, flush=True)


def _unpack_base(root: Path, recipe: Recipe, packages: list[str]) -> None:
    root.parent.mkdir()
    include = f"--include={','.join(packages)}"
    _run("mmdebstrap", "--quiet", "--variant=extract", include, recipe.suite, str(root))
    for useless in ("var/lib/apt", "var/cache", "usr/share/doc", "usr/share/man", "usr/share/locale", "dev"):
        shutil.rmtree(root / useless, ignore_errors=True)
    _byte_compile(root, f"/usr/lib/python{recipe.python}")


def _install(stage: Path, base: Path, recipe: Recipe) -> Path:
    """The locked requirements as wheels, for the image's Python whatever Python runs this."""
    python = ["--python-version", recipe.python, "--python-platform", f"{platform.machine()}-manylinux_2_36"]
    checks = ["--only-binary", ":all:", "--require-hashes", "-r", str(ROOT / recipe.requirements)]
    target = ["--target", str(stage / "layer" / "app")]
    _run(sys.executable, "-m", "uv", "pip", "install", "--quiet", *python, *checks, *target)
    _compile(base, stage, "/app")
    return stage / "layer"


def _compile(base: Path, stage: Path, place: str) -> None:
    """Byte-compiles stage/layer/<place> with the image's own Python, in a linked copy of its root."""
    root, inside = stage / "root", place.lstrip("/")
    shutil.copytree(base, root, symlinks=True, copy_function=os.link)
    (root / inside).parent.mkdir(parents=True, exist_ok=True)
    (stage / "layer" / inside).rename(root / inside)
    _byte_compile(root, place)
    (root / inside).rename(stage / "layer" / inside)


def _byte_compile(root: Path, place: str) -> None:
    mode = ["--invalidation-mode", "unchecked-hash"]
    _run("chroot", str(root), "/usr/bin/python3", "-m", "compileall", "-q", *mode, place)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=600
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is not installed: run `make system` as root") from error
    if done.returncode != 0:
        raise BuildFailed(
            f"{shlex.join(command[:6])} … failed ({done.returncode}): {(done.stderr or done.stdout)[-2000:]}"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One maker per image at a time, across processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
