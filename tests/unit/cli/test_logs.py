"""Log lines that machines read."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from homefed.cli.logs import configure_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_line_is_one_json_object_with_what_was_given_beside(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", json=True)
    log = logging.getLogger("homefed.test")
    log.debug("not shown")
    log.info("pod %s\nrefused", "a", extra={"reason": "NotEnabled", "settings": object()})
    line = json.loads(capsys.readouterr().err)
    assert line.pop("ts").endswith("+00:00")
    assert line == {"level": "info", "logger": "homefed.test", "message": "pod a\nrefused", "reason": "NotEnabled"}


def test_a_traceback_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", json=True)
    try:
        raise KeyError("spec")
    except KeyError:
        logging.getLogger("homefed.test").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "KeyError: 'spec'" in json.loads(line)["error"]


def test_plain_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", json=False)
    logging.getLogger("homefed.test").warning("disk full")
    assert capsys.readouterr().err.endswith("WARNING homefed.test: disk full\n")


def test_access_lines_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", json=True)
    logging.getLogger("aiohttp.access").info("GET /healthz")
    assert capsys.readouterr().err == ""


def test_an_unknown_level_names_the_choices() -> None:
    with pytest.raises(ValueError, match="debug, info, warning or error"):
        configure_logging("loud")
