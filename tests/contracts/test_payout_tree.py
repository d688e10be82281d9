"""Our payout trees as OpenZeppelin's own library reads them."""

import json
from pathlib import Path

import pytest

from homefed.core.payout import Payee, build, checksummed
from testbed import javascript
from testbed.errors import BuildFailed


def some(count: int) -> list[Payee]:
    return [Payee(checksummed(f"0x{number * 7919 + 1:040x}"), number * 10**18 + 1) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 33])
def test_openzeppelins_library_loads_our_tree_and_computes_the_same(count: int, tmp_path: Path) -> None:
    tree, path = build(some(count)), tmp_path / "tree.json"
    path.write_text(json.dumps(tree.dump()))
    theirs = javascript.check_tree(path)
    assert theirs["verified"] is True
    assert theirs["loadedRoot"] == theirs["builtRoot"] == tree.root
    assert theirs["builtTree"] == tree.dump()["tree"]
    assert theirs["proofs"] == [tree.proof(position) for position in range(count)]


def test_openzeppelins_library_refuses_a_tree_with_a_changed_amount(tmp_path: Path) -> None:
    dumped, path = build(some(3)).dump(), tmp_path / "tree.json"
    dumped["values"][0]["value"][1] = "2"
    path.write_text(json.dumps(dumped))
    with pytest.raises(BuildFailed, match="does not contain"):
        javascript.check_tree(path)
