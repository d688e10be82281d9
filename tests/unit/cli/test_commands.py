"""The command line without a cluster: what it refuses, what it writes, what it prints."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from homefed.api.errors import Invalid
from homefed.cli import cluster, invite, output, processes
from homefed.cli.main import cli, main

KUBECONFIG: dict[str, Any] = {
    "current-context": "hub",
    "contexts": [{"name": "hub", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [
        {"name": "c", "cluster": {"server": "https://hub.example:6443", "certificate-authority-data": "UEVN"}}
    ],
    "users": [{"name": "u", "user": {"token": "secret"}}],
}


def written(folder: Path, config: Any = None) -> Path:
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(KUBECONFIG if config is None else config), encoding="utf-8")
    return path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, arguments)


def test_the_version_is_json_when_asked() -> None:
    assert set(json.loads(run("version", "-o", "json").output)) == {"version"}


def test_every_command_that_answers_takes_json() -> None:
    def leaves(command: click.Command) -> list[click.Command]:
        if not isinstance(command, click.Group):
            return [command]
        context = click.Context(command)
        inner = [command.get_command(context, name) for name in command.list_commands(context)]
        return [leaf for one in inner if one is not None for leaf in leaves(one)]

    silent = {"export", "hub", "agent", "ledger", "uninstall"}
    answering = [command for command in leaves(cli) if command.name not in silent]
    without = [command.name for command in answering if "output" not in {option.name for option in command.params}]
    assert len(answering) > 20
    assert without == []


def test_a_command_is_imported_when_it_is_asked_for() -> None:
    """A process of the chart, or a quick question, does not wait for what other commands need."""
    names = subprocess.run(
        [sys.executable, "-c", "import sys, homefed.cli.main; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "homefed.cli.main" in names
    assert not {"kubernetes", "pydantic", "homefed.cli.processes"} & set(names)


@pytest.mark.parametrize("name", ["Oak", "oak.street", "-oak", "o" * 41, ""])
def test_a_name_that_cannot_be_a_homes_is_refused_with_an_example(name: str) -> None:
    refused = run("invite", "--file", "/dev/null/none", "--", name)
    assert isinstance(refused.exception, Invalid)
    assert "oak-street-7" in str(refused.exception)


def test_an_invitation_overwrites_no_file_unasked(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").touch()
    refused = run("invite", "oak", "--file", str(tmp_path / "values.yaml"))
    assert isinstance(refused.exception, Invalid)
    assert "--force" in str(refused.exception)


def test_an_invitations_file_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.touch(mode=0o666)
    invite.write_private(path, invite.values("oak", cluster.Endpoint("https://hub", "PEM"), "t0ken"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    join = yaml.safe_load(path.read_text())["home"]["join"]
    assert join == {"home": "oak", "url": "https://hub", "ca": "PEM", "token": "t0ken"}


def test_the_hub_is_where_the_kubeconfig_says(tmp_path: Path) -> None:
    assert cluster.endpoint(written(tmp_path), None) == cluster.Endpoint("https://hub.example:6443", "PEM")


def test_an_authority_in_a_file_is_read_beside_the_kubeconfig(tmp_path: Path) -> None:
    config = json.loads(json.dumps(KUBECONFIG))
    config["clusters"][0]["cluster"] = {"server": "https://hub", "certificate-authority": "ca.pem"}
    (tmp_path / "ca.pem").write_text("FILE")
    assert cluster.endpoint(written(tmp_path, config), "hub").ca == "FILE"


@pytest.mark.parametrize("config", ["", [], {"contexts": []}, {"current-context": "x", "contexts": [{"name": "y"}]}])
def test_a_malformed_kubeconfig_is_named(tmp_path: Path, config: Any) -> None:
    path = written(tmp_path, config)
    with pytest.raises(Invalid, match=str(path)):
        cluster.endpoint(path, None)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="none"):
        cluster.endpoint(tmp_path / "none", None)


def test_an_error_is_one_sentence_and_its_reason_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["homefed", "status", "--kubeconfig", "/nonexistent"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert "/nonexistent" in printed
    assert "NoKubeconfig" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "0.000000"), (1, "0.000001"), (-1, "-0.000001"), (1_500_000, "1.500000"), (-2_000_001, "-2.000001")],
)
def test_micro_credits_are_shown_exactly(micro: int, text: str) -> None:
    assert output.credits(micro) == text


def test_a_table_without_a_terminal_has_no_colours() -> None:
    text = output.table("title", ["NAME", "COUNT"], [["a", 1], ["b", 20]])
    assert "\x1b" not in text
    assert "NAME" in text
    assert "20" in text


@pytest.mark.parametrize(("text", "seconds"), [("15s", 15), ("1m", 60), ("2h", 7200), ("400d", 34_560_000)])
def test_durations_are_written_as_prometheus_does(text: str, seconds: int) -> None:
    assert processes.Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "15", "s", "-1s", "1w", "1.5s"])
def test_other_durations_are_refused_with_examples(text: str) -> None:
    with pytest.raises(click.BadParameter, match="15s"):
        processes.Duration().convert(text, None, None)
