"""Cumulative payout trees: who may draw how much in all, as a Merkle tree that a token contract can check.

The format is OpenZeppelin's StandardMerkleTree, "standard-v1", of (address, uint256): a leaf is
keccak256(keccak256(abi.encode(address, amount))), leaves are sorted by hash, an inner node is the hash of its two
children in ascending order. Amounts are cumulative, so that a contract pays amount − already drawn, and a new root
replaces the old one. https://github.com/OpenZeppelin/merkle-tree
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from Crypto.Hash import keccak

from homefed.api.errors import Invalid, Refused

FORMAT: Final = "standard-v1"
ENCODING: Final = ["address", "uint256"]
MAX_UINT256: Final = 2**256 - 1
MAX_PAYEES: Final = 1_000_000
MAX_SCALE: Final = 10**18
MAX_ADDRESS_FILE: Final = 64 * 2**20
"""Bytes."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_AMOUNT = re.compile(r"0|[1-9][0-9]{0,77}")


@dataclass(frozen=True)
class Payee:
    """`address` is EIP-55 text; `amount` is the cumulative sum in the token's smallest unit."""

    address: str
    amount: int


@dataclass(frozen=True)
class PayoutTree:
    """`nodes[0]` is the root, node i has the children 2i+1 and 2i+2; `leaves[n]` is the node of `payees[n]`."""

    payees: tuple[Payee, ...]
    nodes: tuple[bytes, ...]
    leaves: tuple[int, ...]

    @property
    def root(self) -> str:
        return _hex(self.nodes[0])

    def proof(self, position: int) -> list[str]:
        """The siblings from the leaf of `payees[position]` up to the root."""
        index, found = self.leaves[position], []
        while index > 0:
            found.append(_hex(self.nodes[index + 1 if index % 2 else index - 1]))
            index = (index - 1) // 2
        return found

    def dump(self) -> dict[str, Any]:
        """What `StandardMerkleTree.load` reads."""
        values = [
            {"value": [payee.address, str(payee.amount)], "treeIndex": index}
            for payee, index in zip(self.payees, self.leaves, strict=True)
        ]
        return {
            "format": FORMAT,
            "leafEncoding": [*ENCODING],
            "tree": [_hex(node) for node in self.nodes],
            "values": values,
        }


def keccak256(data: bytes) -> bytes:
    """Keccak with the padding of before FIPS 202, as Ethereum has it; hashlib's sha3_256 is another function."""
    return keccak.new(digest_bits=256, data=data).digest()


def checksummed(address: str) -> str:
    """EIP-55 form of an address. Invalid when it is none, or when its mixed case does not match."""
    if not _ADDRESS.fullmatch(address):
        raise Invalid(f"{address!r} is no address: 0x and 40 hex digits", reason="InvalidAddress")
    digits = address[2:].lower()
    marks = keccak256(digits.encode()).hex()
    form = "0x" + "".join(c.upper() if int(mark, 16) > 7 else c for c, mark in zip(digits, marks, strict=False))
    given = address[2:]
    if given not in (given.lower(), given.upper()) and address != form:
        raise Invalid(f"{address}: the checksum (EIP-55) is wrong; one digit may be mistyped", reason="InvalidAddress")
    if int(digits, 16) == 0:
        raise Invalid(f"{address}: nobody can draw from the zero address", reason="InvalidAddress")
    return form


def read_addresses(text: str) -> dict[str, str]:
    """Account → address from the organiser's file: lines `account,address`; empty ones and `# …` count for nothing.

    Errors: Invalid, naming the line.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        account, comma, address = (word.strip() for word in line.partition(","))
        if not comma or not account.startswith("contributor:"):
            raise Invalid(f"line {number}: {line[:80]!r} is not contributor:FEDERATION/UID,0xADDRESS")
        if account in found:
            raise Invalid(f"line {number}: {account} has an address already; one line per account")
        try:
            found[account] = checksummed(address)
        except Invalid as error:
            raise Invalid(f"line {number}: {error.message}", reason=error.reason) from error
    return found


def payees(balances: Mapping[str, int], addresses: Mapping[str, str], *, scale: int = 1) -> list[Payee]:
    """Who may draw what: contributors' cumulative µcredit × `scale`, summed per address, in order of addresses.

    Refused where an account that has something coming has no address: it would silently lose its money.
    """
    if not 1 <= scale <= MAX_SCALE:
        raise Invalid(f"scale: {scale}, must be from 1 to {MAX_SCALE}")
    owed = {account: amount for account, amount in balances.items() if amount > 0}
    if missing := sorted(set(owed) - set(addresses)):
        raise Refused(
            f"{len(missing)} accounts have no payout address, the first is {missing[0]}: add a line for each",
            reason="AddressMissing",
        )
    sums: Counter[str] = Counter()
    for account, amount in owed.items():
        sums[checksummed(addresses[account])] += amount * scale
    return [Payee(address, sums[address]) for address in sorted(sums)]


def leaf_hash(payee: Payee) -> bytes:
    encoded = bytes(12) + bytes.fromhex(payee.address[2:]) + payee.amount.to_bytes(32, "big")
    return keccak256(keccak256(encoded))


def build(entries: Sequence[Payee]) -> PayoutTree:
    """The tree of these payees, in their order. Refused for nobody, Invalid for one address twice."""
    if not entries:
        raise Refused("nobody has anything coming: there is no tree of nothing", reason="NothingToPay")
    if len(entries) > MAX_PAYEES:
        raise Refused(f"{len(entries)} payees, at most {MAX_PAYEES}", reason="TooManyPayees")
    hashes = [leaf_hash(payee) for payee in entries]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    size = 2 * len(hashes) - 1
    nodes, leaves = [b""] * size, [0] * len(hashes)
    for rank, position in enumerate(order):
        leaves[position] = size - 1 - rank
        nodes[size - 1 - rank] = hashes[position]
    for index in range(size - 1 - len(hashes), -1, -1):
        nodes[index] = _pair(nodes[2 * index + 1], nodes[2 * index + 2])
    _check_once(entries)
    return PayoutTree(tuple(entries), tuple(nodes), tuple(leaves))


def proves(root: str, payee: Payee, proof: Iterable[str]) -> bool:
    """What a contract computes: whether the siblings lead from this payee's leaf to the root."""
    node = leaf_hash(payee)
    for sibling in proof:
        node = _pair(node, bytes.fromhex(sibling[2:]))
    return _hex(node) == root


def load(value: Any) -> PayoutTree:
    """Read a dumped tree and compute all of it anew. Invalid names the first thing that differs."""
    entries = [_entry(value, number) for number in range(_count(value))]
    tree = build(entries)
    stored = value.get("tree")
    if not isinstance(stored, list) or len(stored) != len(tree.nodes):
        raise Invalid(f"tree: {len(entries)} payees make {len(tree.nodes)} nodes", reason="TreeDiffers")
    for index, node in enumerate(tree.nodes):
        if stored[index] != _hex(node):
            raise Invalid(
                f"tree.{index}: {str(stored[index])[:66]}, but computed is {_hex(node)}", reason="TreeDiffers"
            )
    for number, index in enumerate(tree.leaves):
        if value["values"][number].get("treeIndex") != index:
            raise Invalid(f"values.{number}.treeIndex: not {index}, where its leaf is", reason="TreeDiffers")
    return tree


def shrunk(before: PayoutTree, after: PayoutTree) -> list[str]:
    """Addresses whose cumulative amount is lower than before: a contract would hold back what they earn next."""
    amounts = {payee.address: payee.amount for payee in after.payees}
    return sorted(payee.address for payee in before.payees if amounts.get(payee.address, 0) < payee.amount)


def _count(value: Any) -> int:
    if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("leafEncoding") != ENCODING:
        raise Invalid(f"not a {FORMAT} tree of {', '.join(ENCODING)}", reason="NotATree")
    values = value.get("values")
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_PAYEES:
        raise Invalid("values: not a list of payees", reason="NotATree")
    return len(values)


def _entry(value: Mapping[str, Any], number: int) -> Payee:
    item = value["values"][number]
    pair = item.get("value") if isinstance(item, dict) else None
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(word, str) for word in pair):
        raise Invalid(f"values.{number}: not an address and an amount", reason="NotATree")
    address, amount = pair
    if not _AMOUNT.fullmatch(amount) or int(amount) > MAX_UINT256:
        raise Invalid(f"values.{number}: {amount[:80]!r} is no amount", reason="NotATree")
    return Payee(checksummed(address), int(amount))


def _check_once(entries: Sequence[Payee]) -> None:
    counted = Counter(payee.address for payee in entries)
    address, times = counted.most_common(1)[0]
    if times > 1:
        raise Invalid(f"{address} is there {times} times: a contract would pay one of them", reason="AddressTwice")


def _pair(one: bytes, other: bytes) -> bytes:
    return keccak256(one + other if one < other else other + one)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
