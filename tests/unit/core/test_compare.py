"""What is as wanted is not written again."""

from __future__ import annotations

from homefed.core.compare import contains, same


def test_more_than_wanted_is_still_as_wanted() -> None:
    assert contains({"metadata": {"name": "a", "uid": "u"}, "rules": []}, {"metadata": {"name": "a"}})


def test_lists_are_compared_wholly_and_their_members_as_maps() -> None:
    assert contains({"subjects": [{"kind": "User", "apiGroup": "x"}]}, {"subjects": [{"kind": "User"}]})
    assert not contains({"names": ["a", "b"]}, {"names": ["a"]})
    assert not contains({"names": ["a"]}, {"names": ["b"]})


def test_empty_and_absent_are_the_same() -> None:
    assert contains({}, {"rules": [], "labels": {}, "note": ""})
    assert not contains({"rules": [1]}, {"rules": []})


def test_nothing_contains_something() -> None:
    assert not contains({}, {"metadata": {"name": "a"}})
    assert not contains({"metadata": "a"}, {"metadata": {"name": "a"}})


def test_a_status_is_the_same_only_both_ways() -> None:
    assert same({"homes": 0, "conditions": []}, {"homes": 0, "capacity": {}})
    assert not same({"capacity": {"cpu": "1", "gpu": "1"}}, {"capacity": {"cpu": "1"}})
