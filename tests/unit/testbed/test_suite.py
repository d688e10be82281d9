"""The second run of what failed beside others: who gets one, and that it hides nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.suite import Outcome, conclude, deserves_second_run, read

FLOW = "tests/flows/test_a.py::test_b"


def failed(*tests: str, broken: bool = False) -> Outcome:
    return Outcome(frozenset(), frozenset(tests), broken)


def passed(*tests: str) -> Outcome:
    return Outcome(frozenset(tests), frozenset())


@pytest.mark.parametrize(
    ("code", "outcome", "again"),
    [
        (1, failed(FLOW), True),
        (1, failed("tests/truth/test_a.py::test_b", "tests/attacks/test_a.py::test_b"), True),
        (1, failed(*(f"tests/chart/test_{number}.py::test_b" for number in range(3))), True),
        (1, failed(*(f"tests/chart/test_{number}.py::test_b" for number in range(4))), False),
        (1, failed(FLOW, "tests/unit/core/test_a.py::test_b"), False),
        (1, failed("tests/unit/flows/test_a.py::test_b"), False),
        (1, failed(FLOW, broken=True), False),
        (1, failed(), False),
        (0, passed(FLOW), False),
        (2, failed(FLOW), False),
        (3, failed(FLOW), False),
        (-9, failed(FLOW), False),
    ],
)
def test_only_few_failures_on_real_clusters_get_a_second_run(code: int, outcome: Outcome, again: bool) -> None:
    assert deserves_second_run(code, outcome) is again


def test_the_second_runs_word_is_final_and_a_test_that_vanished_has_not_passed() -> None:
    other = "tests/flows/test_a.py::test_other"

    assert conclude(failed(FLOW), passed(FLOW, other), 0) == (0, [FLOW])
    assert conclude(failed(FLOW), passed(other), 0) == (1, [])
    assert conclude(failed(FLOW), Outcome(frozenset({FLOW}), frozenset({other})), 1) == (1, [FLOW])
    assert conclude(failed(FLOW), failed(), 2) == (2, [])


def test_a_test_that_fails_when_it_is_taken_down_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").touch()
    case = '<testcase classname="tests.test_a.TestX" name="test_b[c.d/e::f]">{}</testcase>'
    report = "".join(["<x>", case.format(""), case.format('<error message="failed on teardown"/>'), "</x>"])

    assert read(report) == failed("tests/test_a.py::TestX::test_b[c.d/e::f]")
