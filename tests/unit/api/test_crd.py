"""The CRDs: as committed, and bounded everywhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homefed.api.crd import KINDS, crd, file_name, render

ROOT = Path(__file__).parents[3]
NAMES = [kind.kind for kind, _ in KINDS]


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas(inner, f"{path}.{name}")
    if "items" in schema:
        yield from schemas(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from schemas(schema["additionalProperties"], f"{path}{{}}")


def root(number: int) -> dict[str, Any]:
    (version,) = crd(*KINDS[number])["spec"]["versions"]
    return dict(version["schema"]["openAPIV3Schema"])


@pytest.mark.parametrize("folder", ["crds", "helm/homefed/files/crds"])
@pytest.mark.parametrize(("kind", "model"), KINDS, ids=NAMES)
def test_the_committed_file_is_what_the_types_say(kind: Any, model: Any, folder: str) -> None:
    committed = (ROOT / folder / file_name(kind)).read_text(encoding="utf-8")
    assert committed == render(kind, model), "run `make crds` and commit what it writes"


@pytest.mark.parametrize("folder", ["crds", "helm/homefed/files/crds"])
def test_no_file_is_left_of_a_kind_that_is_gone(folder: str) -> None:
    assert {path.name for path in (ROOT / folder).iterdir()} == {file_name(kind) for kind, _ in KINDS}


@pytest.mark.parametrize("number", range(len(KINDS)), ids=NAMES)
def test_every_string_list_and_map_is_bounded(number: int) -> None:
    for name in ("spec", "status"):
        for path, schema in schemas(root(number)["properties"].get(name, {}), name):
            if schema.get("x-kubernetes-preserve-unknown-fields"):
                continue
            if schema.get("type") == "string":
                assert "maxLength" in schema or "enum" in schema, f"{path} is an unbounded string"
            if schema.get("type") == "array":
                assert "maxItems" in schema, f"{path} is an unbounded list"
            if "additionalProperties" in schema:
                assert "maxProperties" in schema, f"{path} is an unbounded map"


@pytest.mark.parametrize("number", range(len(KINDS)), ids=NAMES)
def test_every_schema_is_structural(number: int) -> None:
    for path, schema in schemas(root(number)):
        assert "type" in schema, f"{path} has no type"
        assert not {"anyOf", "oneOf", "allOf", "$ref", "title", "const"} & schema.keys(), path


@pytest.mark.parametrize("number", range(len(KINDS)), ids=NAMES)
def test_conditions_are_a_list_keyed_by_type(number: int) -> None:
    status = root(number)["properties"].get("status")
    if status is None:
        assert NAMES[number] == "UsageReport"
        return
    conditions = status["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert "observedGeneration" in conditions["items"]["properties"]


@pytest.mark.parametrize(("kind", "model"), KINDS, ids=NAMES)
def test_every_kind_has_a_short_name_the_category_and_shows_its_age(kind: Any, model: Any) -> None:
    written = crd(kind, model)["spec"]
    assert written["names"]["categories"] == ["homefed"]
    assert written["names"]["shortNames"]
    assert written["versions"][0]["additionalPrinterColumns"][-1]["name"] == "Age"
