"""`homefed payout`: what contributors have coming, as a Merkle tree from which a token contract pays."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any, Final

import click

from homefed.api.canonical import parse as parse_json
from homefed.api.errors import Invalid, Refused
from homefed.cli.ledger_options import FILE, Access, access, ledger_options, progress_bar, text_of, write_whole
from homefed.cli.output import json_option, show
from homefed.core import payout as trees
from homefed.core.ledger import MICRO_CREDIT
from homefed.core.payout import PayoutTree
from homefed.ledger_client.auditing import Auditor, Scope

MAX_TREE: Final = 512 * 2**20
"""Bytes: a million payees."""
SCALE: Final = click.IntRange(1, trees.MAX_SCALE)


@click.group()
def payout() -> None:
    """Payout trees (OpenZeppelin StandardMerkleTree of address and cumulative amount)."""


@payout.command()
@ledger_options
@click.option("--addresses", type=FILE, required=True, help="Lines of ACCOUNT,0xADDRESS.")
@click.option("--scale", type=SCALE, default=1, show_default=True, help="Token units for one µcredit.")
@click.option("--previous", type=FILE, default=None, help="The tree before: no amount may have fallen since.")
@click.option("--file", "path", type=FILE, required=True, help="Where the tree is written.")
@json_option
def build(output: str, addresses: Path, scale: int, previous: Path | None, path: Path, **options: Any) -> None:
    """Build the tree of what the ledger owes by now, once all of its leaves are verified."""
    told = access(**options)
    known = trees.read_addresses(text_of("--addresses", str(addresses)))
    before = _loaded(previous) if previous is not None else None
    balances = asyncio.run(_balances(told))
    tree = trees.build(trees.payees(balances, known, scale=scale))
    _check_grown(before, tree)
    write_whole(path, io.StringIO(json.dumps(tree.dump(), indent=1) + "\n"))
    show(_summary(tree) | {"file": str(path)}, output, _text)


@payout.command()
@click.argument("tree", type=FILE)
@click.option("--root", default="", help="What it must be, e.g. read from the contract.")
@click.option("--previous", type=FILE, default=None, help="The tree before: no amount may have fallen since.")
@click.option("--address", default="", help="Show what this address may draw, with its proof.")
@json_option
def verify(output: str, tree: Path, root: str, previous: Path | None, address: str) -> None:
    """Compute a tree anew and compare: every leaf, every node, the root."""
    found = _loaded(tree)
    if root and root.lower() != found.root:
        raise Refused(f"the root is {found.root}, not {root}", reason="RootDiffers")
    _check_grown(_loaded(previous) if previous is not None else None, found)
    shares = _share(found, trees.checksummed(address)) if address else {}
    show(_summary(found) | shares | {"file": str(tree)}, output, _text)


async def _balances(told: Access) -> dict[str, int]:
    """Contributor account → µcredit, from verified leaves."""
    async with told.reader() as reader:
        scope = Scope(told.url, told.key, told.rules, jobs=told.jobs)
        replay = await Auditor(reader, scope, progress_bar("leaves")).read()
    return {
        account: balance
        for (account, unit), balance in replay.balances.items()
        if unit == MICRO_CREDIT and account.startswith("contributor:")
    }


def _loaded(path: Path) -> PayoutTree:
    try:
        value = parse_json(path.read_bytes(), limit=MAX_TREE)
    except OSError as error:
        raise Invalid(f"{path}: {error}", reason="Unreadable") from error
    return trees.load(value)


def _check_grown(before: PayoutTree | None, after: PayoutTree) -> None:
    fallen = trees.shrunk(before, after) if before is not None else []
    if fallen:
        raise Refused(
            f"{len(fallen)} amounts are lower than in the tree before, the first of {fallen[0]}: a contract that has"
            " paid them already would owe less than nothing; was a claim reversed, or an address changed?",
            reason="AmountFell",
        )


def _share(tree: PayoutTree, address: str) -> dict[str, Any]:
    for position, payee in enumerate(tree.payees):
        if payee.address == address:
            return {"address": address, "amount": str(payee.amount), "proof": tree.proof(position)}
    raise Refused(f"{address} is not in the tree", reason="NotInTree")


def _summary(tree: PayoutTree) -> dict[str, Any]:
    return {
        "root": tree.root,
        "payees": len(tree.payees),
        "total": str(sum(payee.amount for payee in tree.payees)),
    }


def _text(answer: dict[str, Any]) -> str:
    lines = [f"root    {answer['root']}", f"payees  {answer['payees']}", f"total   {answer['total']}"]
    if "proof" in answer:
        lines += [f"{answer['address']} may draw {answer['amount']} in all, by this proof:", *answer["proof"]]
    return "\n".join([*lines, f"file    {answer['file']}"])
