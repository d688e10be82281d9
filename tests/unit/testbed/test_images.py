"""Images without an engine: the recipe, equal bytes for equal content, the format, and what is made anew when."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from testbed.archive import digest_of_tree, pack_layer, write_archive
from testbed.errors import BuildFailed, Unavailable
from testbed.images import IMAGES, KEPT_ARCHIVES, Images
from testbed.recipe import ROOT, Recipe, image_config, read_recipe

DOCKERFILE = """
ARG PYTHON_VERSION=3.12
ARG DEBIAN_SUITE=trixie
FROM python:${PYTHON_VERSION} AS build
COPY requirements/runtime.txt /requirements.txt
RUN pip install \\
    --target /app
COPY operator/homefed /app/homefed
FROM python:${PYTHON_VERSION}-slim
ENV A=1 B="two words"
COPY --from=build /app /app
USER 65532:65532
ENTRYPOINT ["python3", "-m", "homefed"]
"""


class Programs:
    """Programs that are small files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, program: str) -> Path:
        path = self._folder / program
        path.write_text(f"#!/bin/{program}")
        return path


@pytest.fixture
def images(tmp_path: Path) -> Images:
    (tmp_path / "programs").mkdir()
    return Images(Programs(tmp_path / "programs"), tmp_path / "cache", quiet=True)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "Dockerfile"
    path.write_text(text)
    return path


def opened(tar: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, tarfile.TarInfo]]]:
    """Manifest, configuration and the members of the layers of a docker-archive."""
    with tarfile.open(tar) as archive:
        (manifest,) = json.loads(content(archive, "manifest.json"))
        config = json.loads(content(archive, manifest["Config"]))
        layers = [content(archive, name) for name in manifest["Layers"]]
    return manifest, config, [members(layer) for layer in layers]


def content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    with file:
        return file.read()


def members(layer: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        return {member.name: member for member in archive}


# --- the recipe


def test_the_dockerfile_is_the_recipe(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path, DOCKERFILE)) == Recipe(
        python="3.12",
        suite="trixie",
        requirements="requirements/runtime.txt",
        copies={"operator/homefed": "/app/homefed"},
        env={"A": "1", "B": "two words"},
        labels={},
        user="65532:65532",
        workdir="/",
        entrypoint=["python3", "-m", "homefed"],
    )


def test_the_image_configuration_says_what_the_dockerfile_says(tmp_path: Path) -> None:
    config = image_config(read_recipe(written(tmp_path, DOCKERFILE)))
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python3", "-m", "homefed"]
    assert {"A=1", "B=two words"} < set(config["Env"])  # type: ignore[call-overload]


@pytest.mark.parametrize("line", ["RUN apt-get install gcc", "VOLUME /data", "HEALTHCHECK CMD true"])
def test_an_instruction_that_the_tar_would_not_follow_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(BuildFailed, match=line.split()[0]):
        read_recipe(written(tmp_path, f"{DOCKERFILE}{line}\n"))


def test_a_dockerfile_that_leaves_the_user_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="user"):
        read_recipe(written(tmp_path, DOCKERFILE.replace("USER 65532:65532\n", "")))


def test_the_repositorys_dockerfile_can_be_followed_and_is_safe() -> None:
    recipe = read_recipe()
    assert recipe.user.split(":")[0].isdecimal(), "runAsNonRoot can only be checked for a numeric user"
    assert int(recipe.user.split(":")[0]) > 0
    assert recipe.entrypoint == ["python3", "-m", "homefed"]
    assert (ROOT / recipe.requirements).is_file()
    for source, target in recipe.copies.items():
        assert (ROOT / source).is_dir()
        assert Path(target).parent == Path(recipe.env["PYTHONPATH"])


def test_the_final_stage_starts_from_a_slim_image_and_runs_nothing() -> None:
    final = (ROOT / "Dockerfile").read_text().rpartition("FROM ")[2]
    assert final.startswith("python:${PYTHON_VERSION}-slim-")
    assert "\nRUN " not in final


# --- layers and archives


def tree(folder: Path) -> Path:
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "main.py").write_text("print()")
    (folder / "app" / "link").symlink_to("main.py")
    os.link(folder / "app" / "main.py", folder / "app" / "twin.py")
    os.mkfifo(folder / "app" / "pipe")
    return folder


def test_layers_of_equal_content_are_equal_bytes(tmp_path: Path) -> None:
    first = pack_layer(tree(tmp_path / "a"), tmp_path / "a.tar")
    os.utime(tree(tmp_path / "b") / "app" / "main.py", (1, 1))
    second = pack_layer(tmp_path / "b", tmp_path / "b.tar")
    assert first.digest == second.digest == hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()


def test_a_layer_keeps_links_makes_files_of_hard_links_and_leaves_out_special_files(tmp_path: Path) -> None:
    pack_layer(tree(tmp_path / "a"), tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as layer:
        assert content(layer, "app/twin.py") == b"print()"
    packed = members((tmp_path / "a.tar").read_bytes())
    assert sorted(packed) == ["app", "app/link", "app/main.py", "app/twin.py"]
    assert packed["app/link"].linkname == "main.py"
    assert packed["app/twin.py"].isreg()
    assert {(member.uid, member.gid, member.mtime) for member in packed.values()} == {(0, 0, 0)}


def test_an_archive_names_its_configuration_and_layers_by_their_digests(tmp_path: Path) -> None:
    layers = [pack_layer(tree(tmp_path / name), tmp_path / f"{name}.tar") for name in ("low", "high")]
    write_archive(tmp_path / "image.tar", "some:tag", layers, {"User": "1:1"})
    manifest, config, packed = opened(tmp_path / "image.tar")
    assert manifest["RepoTags"] == ["some:tag"]
    assert config["config"] == {"User": "1:1"}
    assert config["rootfs"]["diff_ids"] == [f"sha256:{layer.digest}" for layer in layers]
    assert len(packed) == 2
    with tarfile.open(tmp_path / "image.tar") as archive:
        configuration = content(archive, manifest["Config"])
        assert manifest["Config"] == f"{hashlib.sha256(configuration).hexdigest()}.json"


def test_byte_code_does_not_count_in_the_digest_of_a_tree_names_and_contents_do(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    digest = digest_of_tree(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("x")
    assert digest_of_tree(tmp_path) == digest
    (tmp_path / "a.py").write_text("2")
    assert digest_of_tree(tmp_path) != digest
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert digest_of_tree(tmp_path) != digest


# --- the images


@pytest.mark.parametrize("role", ["workload", "pause", "prometheus", "coredns"])
def test_every_image_runs_as_a_numeric_user_that_is_not_root(images: Images, role: str) -> None:
    manifest, config, _ = opened(images.archive(role))
    assert manifest["RepoTags"] == [IMAGES[role]]
    assert int(config["config"]["User"].split(":")[0]) > 0


def test_the_workload_image_holds_the_workload_and_a_shell(images: Images) -> None:
    _, config, (layer,) = opened(images.archive("workload"))
    assert config["config"]["Entrypoint"] == ["/workload"]
    assert layer["workload"].mode & 0o777 == 0o755
    assert layer["bin/sh"].linkname == "busybox"
    assert layer["tmp"].mode & 0o7777 == 0o1777


def test_an_image_is_made_once(images: Images) -> None:
    first = images.archive("pause")
    made = first.stat().st_ino
    assert images.archive("pause") == first
    assert first.stat().st_ino == made


def test_a_layer_whose_making_was_interrupted_is_made_again(images: Images, tmp_path: Path) -> None:
    image = images.archive("pause")
    whole = image.read_bytes()
    image.unlink()
    (layer,) = (tmp_path / "cache" / "images").glob("layer-pause-*.tar")
    layer.write_bytes(b"half")
    layer.with_suffix(".sha256").unlink()
    assert images.archive("pause").read_bytes() == whole


def test_archives_of_former_inputs_are_removed_but_for_a_few(tmp_path: Path) -> None:
    class Changing(Programs):
        number = 0

        def path(self, program: str) -> Path:
            path = super().path(program)
            path.write_text(f"version {Changing.number}")
            return path

    images = Images(Changing(tmp_path), tmp_path / "cache", quiet=True)
    for Changing.number in range(KEPT_ARCHIVES + 2):
        newest = images.archive("coredns")
        os.utime(newest, (Changing.number, Changing.number))
    left = list((tmp_path / "cache" / "images").glob("archive-coredns-*.tar"))
    assert len(left) == KEPT_ARCHIVES
    assert newest in left


def test_a_missing_compiler_is_named_with_its_remedy(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match=r"gcc is not installed: run `make system`"):
        images.archive("pause")
