"""The checking library of npm: installed once, and a machine without Node.js says so."""

import shutil
from pathlib import Path

import pytest

from testbed import javascript, system
from testbed.errors import Unavailable


def test_without_npm_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOMEFED_TESTBED_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Unavailable, match="make system"):
        javascript.installed()
    assert [*tmp_path.iterdir()] == []


def test_the_lock_names_versions_and_digests_and_no_registry() -> None:
    lock = (javascript.SOURCES / "package-lock.json").read_text()
    assert '"integrity"' in lock
    assert '"resolved"' not in lock


def test_programs_that_are_there_from_elsewhere_are_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "hledger" else f"/usr/bin/{program}")
    assert "hledger" in system.wanted()
    assert not {"nodejs", "npm"} & set(system.wanted())
