"""What the documents say is there: links, files, commands, make targets, chart values, reasons, the worked example."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from homefed.api import quantities
from homefed.api.rate_card import Price
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.cli.main import cli
from homefed.core import refusals
from homefed.core.ledger import UNITS_OF
from homefed.core.rewards import units_of
from homefed.core.rounding import money, split

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "operator" / "homefed"
OBJECTS: Final = ROOT / "docs" / "objects.md"
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FOLDERS: Final = ("operator/", "tests/", "helm/", "docs/", "examples/", "crds/", "requirements/", ".ci/")
REASON_ARGUMENT: Final = {"Finding": 1, "Verdict": 1, "Wait": 0, "Refusal": 0, "Pending": 0, "Fail": 0, "Departure": 1}
"""Which positional argument of a call that makes a finding, a verdict or a refusal is its reason."""

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def code_of(text: str) -> list[str]:
    """What is set as code: spans, fenced and indented lines."""
    without_fences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    fenced = [
        line for block in re.findall(r"```[^\n]*\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()
    ]
    indented = [line for line in without_fences.splitlines() if line.startswith("    ")]
    return [*re.findall(r"`([^`\n]+)`", without_fences), *fenced, *indented]


def anchors_of(text: str) -> set[str]:
    """Anchors as forges make them from headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        if not file.exists() or (anchor and anchor not in anchors_of(text_of(file))):
            broken.append(target)
    assert broken == []


@each_document
def test_files_that_are_named_are_there(document: Path) -> None:
    words = {word.strip(",;:.()'\"") for code in code_of(text_of(document)) for word in code.split()}
    named = {word for word in words if word.startswith(FOLDERS) and not re.search(r"[<>*{}$…]", word)}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def commands_in(code: Iterable[str], program: str) -> Iterator[list[str]]:
    """Invocations of a program as words, up to the end of each command."""
    start = rf"(?:^\s*|&& |; |\$ |\(|[A-Z_]+=\S+ )(?:\S*/)?{program} "
    for line in code:
        for match in re.finditer(start + r"([^|;&#`)]*)", line):
            yield match.group(1).split()


def unknown_in(words: list[str]) -> str | None:
    """The first word of a command that the command line does not know."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        if found is None:
            return name
        command = found
    known = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
    given = [word.partition("=")[0].rstrip(".,") for word in words if re.match(r"--?[a-z]", word)]
    return next((option for option in given if option not in known), None)


@each_document
def test_commands_that_are_named_exist(document: Path) -> None:
    commands = list(commands_in(code_of(text_of(document)), "homefed"))
    assert [command for command in commands if command[:1] != ["VERB"] and unknown_in([*command])] == []


@each_document
def test_make_targets_that_are_named_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    commands = commands_in(code_of(text_of(document)), "make")
    named = {word for command in commands for word in command if re.fullmatch(r"[a-z][a-z-]*", word)}
    assert named - targets == set()


@each_document
def test_chart_values_that_are_named_exist(document: Path) -> None:
    values = yaml.safe_load((ROOT / "helm" / "homefed" / "values.yaml").read_text(encoding="utf-8"))
    paths = set(_paths(values))
    tops = "|".join(map(re.escape, values))
    codes = code_of(text_of(document))
    named = {code for code in codes if re.fullmatch(rf"({tops})(\.(?!db\b|py\b)[a-z][A-Za-z]*)+", code)}
    named |= {name for code in codes for name in re.findall(r"--set(?:-string)?[ =]([A-Za-z.]+)=", code)}
    assert named - paths == set()


def _paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")


def documented_reasons() -> set[str]:
    """The first column of each table in docs/objects.md that is headed Reason."""
    found: set[str] = set()
    in_table = False
    for line in text_of(OBJECTS).splitlines():
        if not line.startswith("|"):
            in_table = False
        elif line.startswith("| Reason "):
            in_table = True
        elif in_table and (match := re.match(r"\| `(\w+)` \|", line)):
            found.add(match.group(1))
    return found


@cache
def constants_and_calls() -> list[ast.expr]:
    """Of the whole package, read once: it is most of what these tests cost."""
    nodes = (node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return [node for node in nodes if isinstance(node, ast.Constant | ast.Call)]


def words_of_the_code() -> set[str]:
    """Every string constant of the package, and the names of the error classes' default reasons among them."""
    constants = (node.value for node in constants_and_calls() if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def reasons_of_the_code() -> set[str]:
    """Reasons that decisions give: constants where findings, verdicts and refusals are made, and core.refusals'."""
    found = {value for name, value in vars(refusals).items() if name.isupper() and isinstance(value, str)}
    for node in constants_and_calls():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REASON_ARGUMENT:
            found |= set(_constant(node.args, REASON_ARGUMENT[node.func.id]))
    return found


def _constant(arguments: list[ast.expr], index: int) -> Iterator[str]:
    if len(arguments) > index:
        argument = arguments[index]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and argument.value:
            yield argument.value


def test_every_documented_reason_is_in_the_code() -> None:
    reasons = documented_reasons()
    assert len(reasons) > 80
    assert reasons - words_of_the_code() == set()


def test_every_reason_of_a_decision_is_documented() -> None:
    reasons = reasons_of_the_code()
    assert len(reasons) > 60
    missing = sorted(reasons - documented_reasons())
    assert missing == [], f"add a row to docs/objects.md for each of {missing}"


def test_every_reason_of_the_ledgers_errors_is_a_reason_of_the_code() -> None:
    section = text_of(ROOT / "docs" / "ledger.md").partition("### Answers that are errors")[2].partition("\n## ")[0]
    reasons = {word for word in re.findall(r"`([A-Z]\w+)`", section) if word != "Retry-After"}
    assert reasons
    assert reasons - words_of_the_code() == set()


def grouped(number: int) -> str:
    """1887 → `1 887`, as the documents write figures."""
    return f"{number:,}".replace(",", " ")


def test_the_worked_example_of_settlement_is_what_the_code_computes() -> None:
    pool = yaml.safe_load((ROOT / "examples" / "pool.yaml").read_text(encoding="utf-8"))
    prices = SchedulingPoolSpec.model_validate(pool["spec"]).rate_card.prices
    requests = quantities.parse_all({"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "64Mi"})
    used = {"cpu": 123_456_789, "memory": 144_000_000, "network-receive": 2_000_000, "network-transmit": 10_000_000}
    text, charged = text_of(ROOT / "docs" / "settlement.md"), 0
    for price in prices:
        accepted = (
            units_of(price.resource, requests[price.resource], 3_600_000)[1]
            if price.basis == "reserved"
            else used[price.resource]
        )
        unit, per = UNITS_OF[price.per]
        amount = money(accepted, price.micro_credits, per)
        charged += amount
        assert _row(price, accepted, unit, amount) in text
    shares = split(charged, fee_ppm=20_000, held_ppm=0)
    paid, fee, dust = grouped(shares.paid), grouped(shares.fee), grouped(shares.dust)
    assert f"charged {grouped(charged)} = paid {paid} + held 0 + fee {fee} + dust {dust}." in text


def _row(price: Price, accepted: int, unit: str, amount: int) -> str:
    rate = f"{grouped(price.micro_credits)} per {price.per}"
    return f"| {price.resource} | {price.basis} | {grouped(accepted)} {unit} | {rate} | {grouped(amount)} |"
