"""Payout trees: the standard's own vectors, what is refused, and that amounts only grow."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.errors import Invalid, Refused
from homefed.core.payout import (
    Payee,
    build,
    checksummed,
    keccak256,
    load,
    payees,
    proves,
    read_addresses,
    shrunk,
)

ONES = "0x" + "11" * 20
TWOS = "0x" + "22" * 20
VITALIK = "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045"
HOME_1 = "contributor:example/home-1"
HOME_2 = "contributor:example/home-2"

addresses = st.binary(min_size=20, max_size=20).filter(any).map(lambda raw: checksummed("0x" + raw.hex()))
entries = st.dictionaries(addresses, st.integers(0, 2**256 - 1), min_size=1, max_size=40).map(
    lambda found: [Payee(address, amount) for address, amount in found.items()]
)


def test_keccak_is_that_of_before_fips_202() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


def test_the_example_of_openzeppelins_readme_has_its_root() -> None:
    tree = build([Payee(ONES, 5_000_000_000_000_000_000), Payee(TWOS, 2_500_000_000_000_000_000)])
    assert tree.root == "0xd4dee0beab2d53f2cc83e567171bd2820e49898130a22622b10ead383e90bd77"


@pytest.mark.parametrize(
    "address",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        VITALIK,
    ],
)
def test_the_addresses_of_eip_55_keep_their_form(address: str) -> None:
    assert checksummed(address) == address
    assert checksummed(address.lower()) == address
    assert checksummed("0x" + address[2:].upper()) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "0x",
        "0x" + "1" * 39,
        "0x" + "1" * 41,
        "1" * 40,
        "0x" + "g" * 40,
        VITALIK.replace("dA", "Da"),
        "0x" + "0" * 40,
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(Invalid):
        checksummed(address)


@given(entries)
def test_every_proof_leads_to_the_root_and_to_no_other_amount(payees_: list[Payee]) -> None:
    tree = build(payees_)
    for position, payee in enumerate(payees_):
        assert proves(tree.root, payee, tree.proof(position))
        assert not proves(tree.root, Payee(payee.address, payee.amount ^ 1), tree.proof(position))


@given(entries)
def test_a_dumped_tree_loads_again(payees_: list[Payee]) -> None:
    tree = build(payees_)
    assert load(tree.dump()) == tree


def test_a_changed_amount_is_found_at_a_node() -> None:
    dumped = build([Payee(ONES, 5), Payee(TWOS, 7)]).dump()
    dumped["values"][1]["value"][1] = "8"
    with pytest.raises(Invalid, match=r"tree\.0"):
        load(dumped)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "standard-v2"},
        {"leafEncoding": ["address", "uint128"]},
        {"values": []},
        {"values": [{"value": [ONES]}]},
        {"values": [{"value": [ONES, "05"], "treeIndex": 0}]},
        {"values": [{"value": [ONES, "-5"], "treeIndex": 0}]},
        {"values": [{"value": [ONES, str(2**256)], "treeIndex": 0}]},
        {"values": [{"value": [ONES, "5"], "treeIndex": 1}]},
        {"tree": []},
        {"tree": ["0x00"]},
    ],
)
def test_what_is_no_tree_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        load(build([Payee(ONES, 5)]).dump() | change)


@pytest.mark.parametrize("value", [None, [], "tree", 5])
def test_other_json_is_no_tree(value: Any) -> None:
    with pytest.raises(Invalid, match="standard-v1"):
        load(value)


def test_nobody_is_no_tree() -> None:
    with pytest.raises(Refused, match="nothing"):
        build([])


def test_one_address_twice_is_refused() -> None:
    with pytest.raises(Invalid, match="2 times"):
        build([Payee(ONES, 5), Payee(ONES, 7)])


def test_two_accounts_of_one_address_draw_together() -> None:
    owed = payees({HOME_1: 5, HOME_2: 7}, {HOME_1: ONES, HOME_2: ONES}, scale=10)
    assert owed == [Payee(ONES, 120)]


def test_an_account_that_has_nothing_coming_needs_no_address() -> None:
    assert payees({HOME_1: 5, HOME_2: 0}, {HOME_1: ONES}) == [Payee(ONES, 5)]


def test_an_account_without_an_address_is_named() -> None:
    with pytest.raises(Refused, match=HOME_2):
        payees({HOME_1: 5, HOME_2: 7}, {HOME_1: ONES})


@pytest.mark.parametrize("scale", [0, -1, 10**19])
def test_a_scale_out_of_range_is_refused(scale: int) -> None:
    with pytest.raises(Invalid, match="scale"):
        payees({HOME_1: 5}, {HOME_1: ONES}, scale=scale)


def test_the_organisers_file_is_lines_of_account_and_address() -> None:
    assert read_addresses(f"# payout\n\n{HOME_1}, {VITALIK.lower()}\n{HOME_2},{ONES}\n") == {
        HOME_1: VITALIK,
        HOME_2: ONES,
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{HOME_1}\n", "line 1"),
        (f"\nconsumer:example/ns,{ONES}\n", "line 2"),
        (f"{HOME_1},{ONES}\n{HOME_1},{TWOS}\n", "line 2.*already"),
        (f"{HOME_1},0x12\n", "line 1.*no address"),
    ],
)
def test_a_fault_in_the_organisers_file_is_named_by_its_line(text: str, fault: str) -> None:
    with pytest.raises(Invalid, match=fault):
        read_addresses(text)


def test_an_amount_that_fell_since_the_tree_before_is_named() -> None:
    before = build([Payee(ONES, 5), Payee(TWOS, 7)])
    assert shrunk(before, build([Payee(ONES, 5), Payee(TWOS, 8)])) == []
    assert shrunk(before, build([Payee(ONES, 4), Payee(TWOS, 7)])) == [ONES]
    assert shrunk(before, build([Payee(ONES, 5)])) == [TWOS]
