"""CustomResourceDefinitions from the pydantic kinds: structural schemas, bounded so that CEL rules fit their budget.

`python -m homefed.api.crd DIRECTORY…` writes one file per kind; the tests compare what is committed with it.
Rules of structural schemas: kubernetes.io, "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from homefed.api import (
    consumer_budget,
    contribution,
    guest_pod,
    home,
    names,
    offer,
    reward_claim,
    scheduling_pool,
    usage_report,
)
from homefed.api.meta import Kind, Model, Rule

KINDS: tuple[tuple[Kind, type[Model]], ...] = (
    (contribution.KIND, contribution.Contribution),
    (scheduling_pool.KIND, scheduling_pool.SchedulingPool),
    (home.KIND, home.Home),
    (offer.KIND, offer.Offer),
    (guest_pod.KIND, guest_pod.GuestPod),
    (usage_report.KIND, usage_report.UsageReport),
    (reward_claim.KIND, reward_claim.RewardClaim),
    (consumer_budget.KIND, consumer_budget.ConsumerBudget),
)

_KEPT = (
    "type", "description", "default", "enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "maxProperties", "required",
)  # fmt: skip


Rules = dict[str, list[dict[str, Any]]]


def crd(kind: Kind, model: type[Model]) -> dict[str, Any]:
    """The CustomResourceDefinition object of one kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{names.GROUP}", "labels": {"homefed.io/role": kind.role}},
        "spec": {
            "group": names.GROUP,
            "scope": kind.scope,
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": list(kind.short_names),
                "categories": ["homefed"],
            },
            "versions": [_version(kind, model)],
        },
    }


def _version(kind: Kind, model: type[Model]) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root_schema(kind, model)},
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    if "status" in model.model_fields:
        version["subresources"] = {"status": {}}
    return version


def _column(column: Any) -> dict[str, Any]:
    written = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    return written | ({"priority": column.priority} if column.priority else {})


def root_schema(kind: Kind, model: type[Model]) -> dict[str, Any]:
    """The schema of a whole object; only `metadata.name` of the metadata may be spoken of in rules."""
    schema = structural(model)
    schema["description"] = (sys.modules[model.__module__].__doc__ or "").strip()
    text = {"type": "string"}
    schema["properties"] = {"apiVersion": text, "kind": text, "metadata": {"type": "object"}} | schema["properties"]
    schema["required"] = ["spec"]
    if kind.name_rule:
        schema["x-kubernetes-validations"] = [_rule(kind.name_rule)]
    return schema


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """Pydantic's JSON schema as a structural one: references resolved, no `null`, rules and markers added."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    definitions = schema.get("$defs", {})
    return _convert(schema, definitions, _rules_of(model))


def _rules_of(model: type[BaseModel]) -> Rules:
    """Class name → CEL rules, for every model reachable from `model`."""
    found: Rules = {}
    waiting: list[Any] = [model]
    seen: set[Any] = set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current, type) and issubclass(current, Model):
            found[current.__name__] = [_rule(rule) for rule in current.cel_rules]
            waiting += [field.annotation for field in current.model_fields.values()]
        else:
            waiting += [part for part in getattr(current, "__args__", ()) if not isinstance(part, str)]
    return found


def _rule(rule: Rule) -> dict[str, Any]:
    written = {"rule": rule.rule, "message": rule.message}
    return written | ({"fieldPath": rule.field_path} if rule.field_path else {})


def _convert(node: dict[str, Any], definitions: dict[str, Any], rules: Rules) -> dict[str, Any]:
    node, name = _resolve(node, definitions)
    out = {key: node[key] for key in _KEPT if node.get(key) is not None}
    out |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if "const" in node:
        out["enum"] = [node["const"]]
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    if "properties" in node:
        required = node.get("required", ())
        out["properties"] = {
            key: _defaulted(_convert(value, definitions, rules), made="$ref" in value and key not in required)
            for key, value in node["properties"].items()
        }
    if "items" in node:
        out["items"] = _convert(node["items"], definitions, rules)
    values = node.get("additionalProperties")
    if isinstance(values, dict) and "x-kubernetes-preserve-unknown-fields" not in out:
        out["additionalProperties"] = _convert(values, definitions, rules)
    if rules.get(name):
        out["x-kubernetes-validations"] = rules[name]
    return out


def _defaulted(schema: dict[str, Any], *, made: bool) -> dict[str, Any]:
    """An object that is made when left out gets its members' defaults, written out: rules are evaluated on them."""
    if made and "default" not in schema:
        members = schema.get("properties", {}).items()
        schema["default"] = {key: value["default"] for key, value in members if "default" in value}
    return schema


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Follow `$ref` and drop `| null`; what the field itself says (description, default) wins over the definition."""
    node = dict(node)
    if "anyOf" in node:
        (kept,) = [branch for branch in node.pop("anyOf") if branch.get("type") != "null"]
        node = kept | node
    name = node.get("title", "")
    if "$ref" in node:
        name = node.pop("$ref").rsplit("/", 1)[-1]
        node = definitions[name] | node
    return node, name


def render(kind: Kind, model: type[Model]) -> str:
    """The YAML text of one CRD file."""
    head = "# Generated by `make crds` from operator/homefed/api; do not edit.\n"
    return head + yaml.dump(crd(kind, model), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)


class _Plain(yaml.SafeDumper):
    """Without anchors: equal parts are written out."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def file_name(kind: Kind) -> str:
    return f"{names.GROUP}_{kind.plural}.yaml"


def write(directory: Path) -> None:
    for kind, model in KINDS:
        (directory / file_name(kind)).write_text(render(kind, model), encoding="utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write(Path(argument))
