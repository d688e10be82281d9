"""The OpenAPI 3.1 document of the service, made from the route table and the types of its documents."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from homefed import VERSION
from homefed.api.claim_document import ClaimHeader, LinesPart
from homefed.api.ledger_answers import ConsumerLines, Problem
from homefed.api.ledger_documents import Floor, Resolution
from homefed.core.request_signature import HEADER
from homefed.ledger.problem import CONTENT_TYPE
from homefed.ledger.routes import ROUTES, Content, Parameter, Route

Json = dict[str, Any]

_ALWAYS: Final = frozenset({503})
_LIMITED: Final = frozenset({401, 403, 429, 503})
_WAIT: Final = frozenset({429, 503})
_SIGNED: Final[tuple[type[BaseModel], ...]] = (ClaimHeader, LinesPart, Resolution, Floor, ConsumerLines)
"""Types that no route names, but its prose does: what envelopes and lines hold."""
_SECURITY_SCHEMES: Final[Json] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A Kubernetes token of audience homefed-ledger."},
    "ownBearer": {
        "type": "apiKey",
        "in": "header",
        "name": "X-HomeFed-Authorization",
        "description": "`Bearer TOKEN`, where a proxy strips Authorization.",
    },
    "homeSignature": {
        "type": "apiKey",
        "in": "header",
        "name": HEADER,
        "description": "By the home's key over audience, method, path with query, time and the body's digest.",
    },
    "clientCertificate": {"type": "mutualTLS", "description": "Of a listed common name."},
}
_SECURITY: Final[dict[str, list[Json]]] = {
    "public": [{}],
    "submitter": [{"bearer": []}, {"ownBearer": []}, {"clientCertificate": []}],
    "owner": [{"bearer": []}, {"ownBearer": []}, {"homeSignature": []}, {"clientCertificate": []}],
}


@cache
def document() -> Json:
    """The whole document; the same object each time, not to be changed."""
    references, schemas = _schemas()
    paths: dict[str, Json] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HomeFed ledger",
            "version": VERSION,
            "summary": "Signed reward claims in, balanced transfers and receipts out, once and for ever.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY_SCHEMES},
    }


def _schemas() -> tuple[dict[type[BaseModel], Json], Json]:
    """Each type's reference, and what the references lead to."""
    models: set[type[BaseModel]] = {Problem, *_SIGNED}
    for route in ROUTES:
        contents = [*route.success.values(), *([route.body] if route.body else [])]
        models.update(content.model for content in contents if content.model)
    mode: JsonSchemaMode = "validation"
    ordered = sorted(models, key=lambda model: model.__name__)
    found, definitions = models_json_schema(
        [(model, mode) for model in ordered], ref_template="#/components/schemas/{model}"
    )
    return {model: found[(model, mode)] for model in ordered}, definitions["$defs"]


def _operation(route: Route, references: dict[type[BaseModel], Json]) -> Json:
    answers = {str(status): _content(content, references) for status, content in route.success.items()}
    refusals = route.refusals | (_ALWAYS if route.access == "public" else _LIMITED)
    refusals |= {404} if any(parameter.place == "path" for parameter in route.parameters) else frozenset()
    operation: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.tag],
        "security": _SECURITY[route.access],
        "parameters": [_parameter(parameter) for parameter in route.parameters],
        "responses": answers | {str(status): _problem(status, references) for status in sorted(refusals)},
    }
    if route.body is not None:
        operation["requestBody"] = _content(route.body, references) | {"required": True}
    return operation


def _parameter(parameter: Parameter) -> Json:
    schema: Json = {"type": "string", "pattern": f"^{parameter.pattern}$"}
    if parameter.most is not None:
        schema = {"type": "integer", "minimum": parameter.least, "maximum": parameter.most}
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.required or parameter.place == "path",
        "schema": schema,
    }


def _content(content: Content, references: dict[type[BaseModel], Json]) -> Json:
    schema: Json = {"type": "string"} if content.media == "text/plain" else {}
    if content.model is not None:
        schema = references[content.model]
    elif content.media == "application/json":
        schema = {"type": "object"}
    return {"description": content.description, "content": {content.media: {"schema": schema}}}


def _problem(status: int, references: dict[type[BaseModel], Json]) -> Json:
    answer: Json = {
        "description": HTTPStatus(status).phrase,
        "content": {CONTENT_TYPE: {"schema": references[Problem]}},
    }
    if status in _WAIT:
        seconds = {"type": "integer", "minimum": 1}
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "required": True, "schema": seconds}}
    return answer


def operations(routes: Sequence[Route] = ROUTES) -> frozenset[str]:
    """The handlers that the table needs."""
    return frozenset(route.operation for route in routes)
