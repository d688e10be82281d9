"""Docker archives by `tarfile`: layers of equal content are equal bytes, wherever and whenever they are made."""

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layer:
    """An uncompressed layer tar and its digest (which is also its diff id)."""

    path: Path
    digest: str


def pack_layer(folder: Path, tar: Path) -> Layer:
    """Writes everything below `folder` into `tar`: sorted, owned by root, dated 1970."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            _add(archive, path, str(path.relative_to(folder)))
    return Layer(tar, digest_of_file(tar))


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    entry = archive.gettarinfo(str(path), name)
    if entry is None or not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
        return  # sockets and device nodes: the runtime makes its own /dev
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    if not entry.isdir() and not entry.issym():  # hard links (the staging area is full of them) become files again
        entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
        with path.open("rb") as content:
            archive.addfile(entry, content)
    else:
        archive.addfile(entry)


def write_archive(tar: Path, name: str, layers: list[Layer], config: dict[str, object]) -> None:
    """Writes a docker-archive. `config` is the image's runtime part: User, Env, Entrypoint, WorkingDir, Labels."""
    document = {
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "homefed testbed"} for _ in layers],
    }
    configuration = json.dumps(document, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [
        {"Config": config_name, "RepoTags": [name], "Layers": [f"{layer.digest}/layer.tar" for layer in layers]}
    ]
    partial = tar.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        _add_bytes(archive, config_name, configuration)
        for layer in layers:
            archive.add(str(layer.path), f"{layer.digest}/layer.tar", filter=_plain)
        _add_bytes(archive, "manifest.json", json.dumps(manifest).encode())
    partial.rename(tar)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_tree(folder: Path) -> str:
    """SHA-256 over names and contents of the files below `folder`; byte code and caches do not count."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(f"{path.relative_to(folder)}\0{digest_of_file(path)}\0".encode())
    return total.hexdigest()
