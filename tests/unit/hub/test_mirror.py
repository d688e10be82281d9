"""The mirror of kopf's events makes good what events missed, and never goes back in time."""

from __future__ import annotations

from typing import Any

from homefed.hub.mirror import Mirror

Json = dict[str, Any]


def home(name: str, version: str, uid: str = "u") -> Json:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": version, "managedFields": []}}


def mirror_of(*objects: Json) -> tuple[Mirror, list[str]]:
    heard: list[str] = []
    mirror = Mirror(lambda key, old, new: heard.append(f"{key[1]} {old is not None:d}{new is not None:d}"))
    for obj in objects:
        mirror.take({"type": None, "object": obj})
    heard.clear()
    return mirror, heard


def test_events_add_change_and_delete() -> None:
    mirror, heard = mirror_of()
    mirror.take({"type": None, "object": home("anna", "1")})
    mirror.take({"type": "MODIFIED", "object": home("anna", "2")})
    mirror.take({"type": "MODIFIED", "object": home("anna", "2")})
    mirror.take({"type": "DELETED", "object": home("anna", "3")})
    assert heard == ["anna 01", "anna 11", "anna 10"]
    assert mirror.store == {}


def test_a_complete_list_tells_of_what_vanished_and_what_is_new() -> None:
    mirror, heard = mirror_of(home("anna", "1"), home("bea", "1"))
    mirror.correct([home("bea", "1"), home("cora", "1")], mirror.versions())
    assert sorted(heard) == ["anna 10", "cora 01"]


def test_what_events_said_after_the_list_began_stands() -> None:
    mirror, heard = mirror_of(home("anna", "1"))
    before = mirror.versions()
    mirror.take({"type": "MODIFIED", "object": home("anna", "5")})
    mirror.take({"type": "ADDED", "object": home("bea", "4")})
    heard.clear()
    mirror.correct([home("anna", "1")], before)
    assert heard == []
    assert mirror.store[("", "anna")]["metadata"]["resourceVersion"] == "5"
    assert ("", "bea") in mirror.store


def test_a_recreated_object_is_another_one() -> None:
    mirror, heard = mirror_of(home("anna", "1"))
    mirror.correct([home("anna", "1", uid="v")], mirror.versions())
    assert heard == ["anna 11"]


def test_fields_that_nobody_reads_are_dropped() -> None:
    mirror, _ = mirror_of(home("anna", "1"))
    assert "managedFields" not in mirror.store[("", "anna")]["metadata"]
