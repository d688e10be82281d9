"""Quantities: Kubernetes' texts as integers and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api import quantities
from homefed.api.errors import Invalid


@pytest.mark.parametrize(
    ("resource", "text", "amount"),
    [
        ("cpu", "1", 1000),
        ("cpu", "1.5", 1500),
        ("cpu", "100m", 100),
        ("cpu", "100u", 1),
        ("cpu", 2, 2000),
        ("memory", "1Gi", 2**30),
        ("memory", "1G", 10**9),
        ("memory", "1e3", 1000),
        ("memory", "12E", 12 * 10**18 if quantities.MAX_QUANTITY >= 12 * 10**18 else None),
        ("memory", "128974848", 128974848),
        ("memory", "1500m", 2),
        ("pods", "110", 110),
        ("nvidia.com/gpu", "2", 2),
    ],
)
def test_a_text_is_the_amount_in_base_units(resource: str, text: str | int, amount: int | None) -> None:
    if amount is None:
        with pytest.raises(Invalid, match="absurdly large"):
            quantities.parse(resource, text)
    else:
        assert quantities.parse(resource, text) == amount


@pytest.mark.parametrize("text", ["", "1 Gi", "NaN", "inf", "0x10", "1KiB", "--1", "1e9999", "9" * 40, "1\n"])
def test_nonsense_is_refused_with_the_resource_and_examples(text: str) -> None:
    with pytest.raises(Invalid, match="memory"):
        quantities.parse("memory", text)


@given(st.sampled_from(["cpu", "memory", "ephemeral-storage", "pods", "example.com/thing"]), st.integers(0, 2**60))
def test_rendering_loses_nothing(resource: str, amount: int) -> None:
    assert quantities.parse(resource, quantities.render(resource, amount)) == amount


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
)
def test_what_was_added_can_be_taken_away(left: dict[str, int], right: dict[str, int]) -> None:
    rest = quantities.subtract(quantities.add(left, right), right)
    assert {name: amount for name, amount in rest.items() if amount} == {n: a for n, a in left.items() if a}


def test_what_does_not_fit_is_named() -> None:
    assert quantities.fits({"cpu": 2, "memory": 1, "gpu": 1}, {"cpu": 1, "memory": 1}) == ["cpu", "gpu"]
