"""Where programs are looked for, what makes a build new, and what an interrupted or failed build leaves."""

import os
import re
import threading
from pathlib import Path

import pytest

from testbed import binaries as module
from testbed.binaries import Artefact, Binaries, build, cache_root, ensure, load_artefacts, load_versions
from testbed.errors import BuildFailed, TestbedError, Unavailable


def artefact(folder: Path, **changes: object) -> Artefact:
    """An artefact of versions.toml's form, in a folder of its own."""
    table = {"packages": ["example.org/tool"], "version": "v1.2.3", "programs": ["tool"]} | changes
    lines = [f"{key} = {value!r}".replace("'", '"') for key, value in table.items()]
    path = folder / "versions.toml"
    path.write_text("[tool]\n" + "\n".join(lines))
    return load_artefacts(path)[0]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the Go toolchain: runs the script in this file, and counts its runs in `runs` beside it."""
    folder = tmp_path / "toolchain"
    folder.mkdir()
    script = folder / "script"
    script.write_text('printf "#!/bin/sh\\n" > "$GOBIN/tool"; chmod +x "$GOBIN/tool"')
    go = folder / "go"
    go.write_text(f"#!/bin/sh\necho run >> {folder}/runs\n. {script}\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return script


def runs(go: Path) -> int:
    counted = go.with_name("runs")
    return len(counted.read_text().splitlines()) if counted.exists() else 0


def test_the_versions_file_and_the_go_modules_agree() -> None:
    tables = load_versions()
    required = {
        "controlplane": {"k8s.io/kubernetes": "kubernetes", "go.etcd.io/etcd/server/v3": "etcd"},
        "kind-config-check": {"sigs.k8s.io/kind": "kind"},
        "tlog-check": {
            "filippo.io/torchwood": "torchwood",
            "github.com/transparency-dev/tessera": "tessera",
            "github.com/transparency-dev/formats": "formats",
            "golang.org/x/mod": "mod",
        },
    }
    for name, modules in required.items():
        text = (module.HERE / tables[name]["module"] / "go.mod").read_text()
        for path, key in modules.items():
            assert re.search(rf"^\s*{re.escape(path)} {re.escape(tables[name][key])}$", text, re.MULTILINE), path


def test_staging_modules_and_kubectl_have_the_version_of_kubernetes() -> None:
    version = load_versions()["controlplane"]["kubernetes"]
    staging = version.replace("v1.", "v0.")
    replaced = re.findall(r"=> k8s.io/\S+ (\S+)", (module.HERE / "modules/controlplane/go.mod").read_text())
    assert len(replaced) == 33
    assert set(replaced) == {staging}
    assert f"k8s.io/kubectl {staging}" in (module.HERE / "modules/kubectl/go.mod").read_text()
    assert load_versions()["kubectl"]["kubernetes"] == version


def test_every_artefact_has_a_source() -> None:
    found = load_artefacts()
    assert [one.name for one in found if not one.module and not (one.packages and one.version)] == []
    assert all(one.programs for one in found)


def test_no_program_has_two_sources() -> None:
    programs = [program for found in load_artefacts() for program in found.programs]
    assert len(programs) == len(set(programs))


@pytest.mark.parametrize("change", [{"version": "v1.2.4"}, {"tags": ["x"]}, {"packages": ["example.org/other"]}])
def test_a_changed_input_is_a_new_artefact(tmp_path: Path, change: dict[str, object]) -> None:
    assert artefact(tmp_path).key() == artefact(tmp_path).key()
    assert artefact(tmp_path, **change).key() != artefact(tmp_path).key()


@pytest.mark.parametrize("file", ["main.go", "go.mod", "go.sum"])
def test_a_changed_module_file_is_a_new_artefact(tmp_path: Path, file: str) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / file).write_text("before")
    before = artefact(tmp_path, module="src").key()
    (source / file).write_text("after")
    assert artefact(tmp_path, module="src").key() != before


def test_one_changed_version_leaves_the_others_in_the_cache(tmp_path: Path) -> None:
    text = module.VERSIONS.read_text()
    (tmp_path / "versions.toml").write_text(text.replace('version = "v0.8.0"', 'version = "v0.8.1"'))
    (tmp_path / "modules").symlink_to(module.HERE / "modules")
    changed = {
        a.name
        for a, b in zip(load_artefacts(tmp_path / "versions.toml"), load_artefacts(), strict=True)
        if a.key() != b.key()
    }
    assert changed == {"kwok"}


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"HOMEFED_TESTBED_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
        ({"XDG_CACHE_HOME": "/b"}, Path("/b/homefed-testbed")),
        ({}, Path.home() / ".cache" / "homefed-testbed"),
    ],
)
def test_the_cache_is_where_one_wants_it(environ: dict[str, str], root: Path) -> None:
    assert cache_root(environ) == root


def test_own_programs_come_before_the_cache(tmp_path: Path) -> None:
    environ = {"HOMEFED_TESTBED_BIN": str(tmp_path / "a"), "KUBEBUILDER_ASSETS": str(tmp_path / "b"), "PATH": "/bin"}
    for folder, programs in (("a", ["tool"]), ("b", ["tool", "etcd"])):
        (tmp_path / folder).mkdir()
        for program in programs:
            (tmp_path / folder / program).touch(0o755)
    found = Binaries([artefact(tmp_path)], environ)
    assert found.path("tool") == tmp_path / "a" / "tool"
    assert found.path("etcd") == tmp_path / "b" / "etcd"
    assert found.path("sh") == Path("/bin/sh")
    assert found.missing() == []


def test_what_cannot_be_found_is_named_with_the_remedy(tmp_path: Path) -> None:
    found = Binaries([artefact(tmp_path)], {"HOMEFED_TESTBED_CACHE": str(tmp_path), "PATH": "/bin"})
    with pytest.raises(Unavailable, match=r"tool is not built: run `make testbed`"):
        found.path("tool")
    with pytest.raises(Unavailable, match=r"no-such-thing is not installed: run `make testbed`"):
        found.path("no-such-thing")


def test_a_build_appears_whole_and_is_not_repeated(tmp_path: Path, go: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = Binaries([artefact(tmp_path)], {"HOMEFED_TESTBED_CACHE": str(tmp_path / "cache")})
    ensure(found)
    assert os.access(found.path("tool"), os.X_OK)
    assert re.search(r"testbed: tool: built in \d+ s", capfd.readouterr().err)
    ensure(found)
    assert runs(go) == 1


def test_a_failed_build_leaves_nothing_and_shows_its_log(tmp_path: Path, go: Path) -> None:
    go.write_text('touch "$GOBIN/tool"; echo "main.go:7: no such thing" >&2; exit 3')
    tool = artefact(tmp_path)
    with pytest.raises(BuildFailed, match=r"ended with 3\n.*main.go:7: no such thing"):
        build(tool, tmp_path / "cache" / "tool")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tool.lock"]


def test_what_a_killed_builder_left_is_removed_by_the_next(tmp_path: Path, go: Path) -> None:
    left = tmp_path / "cache" / ".tool-abandoned"
    left.mkdir(parents=True)
    build(artefact(tmp_path), tmp_path / "cache" / "tool")
    assert not left.exists()


def test_a_build_without_the_promised_program_fails(tmp_path: Path, go: Path) -> None:
    go.write_text('touch "$GOBIN/other"')
    with pytest.raises(BuildFailed, match="built, but without tool"):
        build(artefact(tmp_path), tmp_path / "cache" / "tool")
    assert not (tmp_path / "cache" / "tool").exists()


def test_two_builders_build_once(tmp_path: Path, go: Path) -> None:
    go.write_text('sleep 0.3; touch "$GOBIN/tool"')
    tool = artefact(tmp_path)
    threads = [threading.Thread(target=build, args=(tool, tmp_path / "cache" / "tool")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs(go) == 1
    assert (tmp_path / "cache" / "tool" / "tool").exists()


def test_progress_is_shown_while_a_build_goes_on(
    tmp_path: Path, go: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "REPORT_EVERY_S", 0.1)
    go.write_text('sleep 0.5; touch "$GOBIN/tool"')
    build(artefact(tmp_path), tmp_path / "cache" / "tool")
    assert re.search(r"testbed: tool: building, \d+ s", capfd.readouterr().err)


def test_without_go_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="go is not installed, and tool is not in the cache"):
        build(artefact(tmp_path), tmp_path / "cache" / "tool")


def test_only_builds_what_is_named(tmp_path: Path, go: Path) -> None:
    (tmp_path / "versions.toml").write_text(
        "".join(f'[{name}]\npackages = ["{name}"]\nprograms = ["{name}"]\n' for name in ("other", "tool"))
    )
    found = Binaries(load_artefacts(tmp_path / "versions.toml"), {"HOMEFED_TESTBED_CACHE": str(tmp_path / "cache")})
    ensure(found, ["tool"])
    assert runs(go) == 1
    assert [artefact.name for artefact in found.missing()] == ["other"]


def test_a_name_that_no_artefact_has_is_refused(tmp_path: Path, go: Path) -> None:
    found = Binaries([artefact(tmp_path)], {"HOMEFED_TESTBED_CACHE": str(tmp_path / "cache")})
    with pytest.raises(TestbedError, match="hlm: no such artefact or program, there are tool"):
        ensure(found, ["hlm"])
