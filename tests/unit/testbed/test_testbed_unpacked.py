"""Programs out of Debian packages that are not installed: whole or not at all; a remedy where they cannot be had."""

import subprocess
from pathlib import Path

import pytest

from testbed import unpacked
from testbed.errors import Unavailable


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been run; a package that is fetched has the program that versions.toml names."""
    run: list[str] = []

    def pretended(command: list[str], folder: Path, *, check: bool = True) -> None:
        run.append(" ".join(command[:2]))
        if command[1] == "download":
            (folder / f"{command[-1]}_1_amd64.deb").touch()
        elif command[0] == "dpkg-deb":
            program = Path(command[-1]) / "usr/bin/prometheus"
            program.parent.mkdir(parents=True)
            program.touch()

    monkeypatch.setenv("HOMEFED_TESTBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(unpacked, "_run", pretended)
    monkeypatch.setattr(unpacked.shutil, "which", lambda name: f"/usr/bin/{name}")
    return run


def test_a_program_is_fetched_once_and_its_package_never_installed(commands: list[str]) -> None:
    first = unpacked.program("prometheus2")
    assert first.is_file()
    assert unpacked.program("prometheus2") == first
    assert commands == ["apt-get download", "dpkg-deb --extract"]


def test_an_unpacking_that_fails_leaves_nothing(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(command: list[str], folder: Path, *, check: bool = True) -> None:
        if check:
            raise subprocess.CalledProcessError(100, command, stderr="E: Unable to locate package")

    monkeypatch.setattr(unpacked, "_run", failing)
    with pytest.raises(Unavailable, match="Unable to locate package"):
        unpacked.program("prometheus2")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_apt_the_package_is_named(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="package prometheus cannot be fetched"):
        unpacked.program("prometheus2")
