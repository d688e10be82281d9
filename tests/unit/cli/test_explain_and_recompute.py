"""`claims explain` and `claims recompute` with nothing but files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import homefed
from homefed.api.errors import Invalid
from homefed.cli.main import cli
from homefed.core import evidence
from unit.core.settled_home import HUB_KEY, T0, Federation, public


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = Federation()
    for hour in (1, 2):
        world.measure(hour)
        world.settle(hour)
    path = tmp_path_factory.mktemp("evidence") / f"evening-{T0 + 7200}.bundle.json.gz"
    path.write_bytes(world.bundle(2))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["claims", *map(str, arguments)])


def claim_file(bundle: Path, folder: Path, **changes: Any) -> Path:
    """As `homefed claims show CLAIM -o json` writes it."""
    settled = evidence.read(bundle.read_bytes()).settled
    assert settled is not None
    document = {"envelope": settled.claim.envelope, "parts": [part.dump() for part in settled.claim.parts]} | changes
    path = folder / "claim.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_in_a_process_of_its_own_all_bytes_are_the_same(bundle: Path, tmp_path: Path) -> None:
    """Another machine: an empty folder, no HOME, no kubeconfig, nothing but the two files."""
    path = claim_file(bundle, tmp_path)
    environment = {"PATH": os.defpath, "PYTHONPATH": str(Path(homefed.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "homefed", "claims", "recompute", str(bundle), "--claim", str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": the same") == 3
    assert done.stdout.endswith("all bytes are the same\n")


def test_what_differs_is_named_and_the_exit_status_is_1(bundle: Path, tmp_path: Path) -> None:
    settled = evidence.read(bundle.read_bytes()).settled
    assert settled is not None
    parts = [part.dump() for part in settled.claim.parts]
    parts[0]["lines"][1]["amount"] = "1"
    path = claim_file(bundle, tmp_path, parts=parts)
    done = run("recompute", bundle, "--claim", path)
    assert done.exit_code == 1
    assert "lines.1.amount: signed" in done.output
    answer = json.loads(run("recompute", bundle, "--claim", path, "-o", "json").output)
    assert not answer["same"]
    lines = next(one for one in answer["documents"] if one["document"] == "lines 1")
    assert lines["at"] > 0
    assert lines["fields"][0]["field"] == "lines.1.amount"


def test_the_hubs_signature_is_checked_when_its_key_is_given(bundle: Path) -> None:
    key = base64.b64encode(public(HUB_KEY)).decode()
    assert "signature of the hub: verified" in run("recompute", bundle, "--hub-key", key).output
    other = base64.b64encode(bytes(32)).decode()
    refused = run("recompute", bundle, "--hub-key", other)
    assert refused.exit_code == 1
    assert "UnknownKey" in refused.output


def test_a_window_that_is_not_settled_says_so(tmp_path: Path) -> None:
    world = Federation()
    world.measure(1)
    path = tmp_path / "evening.evidence.json.gz"
    path.write_bytes(world.bundle(1))
    done = run("recompute", path)
    assert done.exit_code == 0
    assert "had not settled its window" in done.output
    assert isinstance(run("explain", "--file", path).exception, Invalid)


def test_explain_reads_a_bundle_or_what_show_wrote(bundle: Path, tmp_path: Path) -> None:
    from_bundle = json.loads(run("explain", "--file", bundle, "-o", "json").output)
    from_file = json.loads(run("explain", "--file", claim_file(bundle, tmp_path), "-o", "json").output)
    assert from_bundle["claim"] == from_file["claim"]
    assert from_bundle["holds"]
    assert all(line["holds"] for line in from_bundle["lines"])
    text = run("explain", "--file", bundle).output
    assert "amount = ⌊accepted × rate" in text
    assert "SAYS OTHERWISE" not in text


def test_explain_wants_a_claim_or_a_file(tmp_path: Path) -> None:
    assert isinstance(run("explain").exception, Invalid)
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    assert isinstance(run("explain", "--file", tmp_path / "x.json").exception, Invalid)
