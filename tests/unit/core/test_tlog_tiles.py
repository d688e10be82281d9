"""Names of tiles, and bundles of entries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.errors import Invalid
from homefed.core import tlog_tiles
from homefed.core.merkle import leaf_hash
from homefed.core.tlog_tiles import Tile
from testbed.memory_log import all_tiles


@pytest.mark.parametrize(
    ("number", "width", "path"),
    [
        (0, 256, "000"),
        (7, 1, "007.p/1"),
        (999, 255, "999.p/255"),
        (1000, 256, "x001/000"),
        (1234067, 256, "x001/x234/067"),
        (1234067, 112, "x001/x234/067.p/112"),
    ],
)
def test_tiles_are_named_as_the_specification_says(number: int, width: int, path: str) -> None:
    assert Tile(3, number, width).path() == f"tile/3/{path}"
    assert tlog_tiles.bundle_path(number, width) == f"tile/entries/{path}"
    assert tlog_tiles.parse_index(path) == (number, width)


@given(st.integers(0, 2**54), st.integers(1, 256))
def test_every_name_is_read_back(number: int, width: int) -> None:
    assert tlog_tiles.parse_index(tlog_tiles.index_path(number, width)) == (number, width)


@pytest.mark.parametrize(
    "path",
    ["", "0", "00", "0000", "x000/000", "x000/001", "001/000", "x1/000", "x001/x000", "000.p/0", "000.p/256",
     "000.p/01", "000.p/", "000.p/1000", "000.p/1.p/1", "-01", "٠٠٠", "000/", "/000", "../000", "x" * 90],
)  # fmt: skip
def test_another_name_for_a_tile_is_none(path: str) -> None:
    with pytest.raises(Invalid):
        tlog_tiles.parse_index(path)


def test_the_tiles_of_the_specifications_example() -> None:
    """A tree of 70 000: 273 full tiles and one of 112; one full tile of level 1 and one of 17; one of level 2 of 1."""
    tiles = all_tiles(70_000)
    assert [tile.width for tile in tiles if tile.level == 0] == [256] * 273 + [112]
    assert [tile for tile in tiles if tile.level] == [Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert all_tiles(256) == [Tile(0, 0), Tile(1, 0, 1)]
    assert all_tiles(0) == []


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_bundles_are_read_back(entries: list[bytes]) -> None:
    data = tlog_tiles.encode_bundle(entries)
    assert tlog_tiles.decode_bundle(data) == entries
    for cut in range(len(data)):
        try:
            assert len(tlog_tiles.decode_bundle(data[:cut])) < len(entries)
        except Invalid:
            continue


def test_a_bundle_that_is_cut_is_refused() -> None:
    data = tlog_tiles.encode_bundle([b"first", b"second"])
    for cut in (len(data) - 1, 8, 1):
        with pytest.raises(Invalid, match="ends inside"):
            tlog_tiles.decode_bundle(data[:cut])


def test_the_largest_entry_fits_and_a_larger_one_is_refused() -> None:
    largest = bytes(tlog_tiles.MAX_ENTRY)
    assert tlog_tiles.decode_bundle(tlog_tiles.encode_bundle([largest])) == [largest]
    with pytest.raises(Invalid, match="longer than 65535"):
        tlog_tiles.encode_bundle([largest + b"x"])


def test_a_tile_of_another_length_than_its_name_says_proves_nothing() -> None:
    tile = Tile(0, 0, 3)
    hashes = b"".join(leaf_hash(bytes([number])) for number in range(4))
    for data in (hashes, hashes[:64], b""):
        with pytest.raises(Invalid, match="instead of 96"):
            tlog_tiles.inclusion_proof(0, 3, {tile: data})
    with pytest.raises(Invalid, match="0 bytes instead of 96"):
        tlog_tiles.inclusion_proof(0, 3, {})
