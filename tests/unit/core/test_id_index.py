"""The audit's index of ids behaves as a dict does."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from homefed.core.id_index import SLOTS_AT_FIRST, IdIndex


def identity(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def test_what_was_added_is_found_also_after_growing() -> None:
    index, count = IdIndex(), 3 * SLOTS_AT_FIRST
    assert all(index.add(identity(number), number) is None for number in range(count))
    assert [index.find(identity(number)) for number in range(count)] == list(range(count))
    assert index.find(identity(count)) is None
    assert len(index) == count


def test_a_second_value_of_an_id_is_not_taken() -> None:
    index = IdIndex()
    index.add(identity(1), 0)
    assert index.add(identity(1), 5) == 0
    assert index.find(identity(1)) == 0
    assert len(index) == 1


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 2**40))))
def test_it_agrees_with_a_dict(items: list[tuple[bytes, int]]) -> None:
    index: IdIndex = IdIndex()
    model: dict[bytes, int] = {}
    for key, value in items:
        assert index.add(key, value) == model.get(key[:16])
        model.setdefault(key[:16], value)
        assert index.find(key) == model[key[:16]]


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50))
def test_ids_that_meet_in_one_slot_stay_apart(tops: list[int]) -> None:
    index = IdIndex()
    crowded = [top.to_bytes(8, "big") + bytes(24) for top in tops]
    for number, key in enumerate(crowded):
        assert index.add(key, number) is None
    assert [index.find(key) for key in crowded] == list(range(len(crowded)))
