"""The OpenAPI document says what the service does: schemathesis sends what it allows and what it forbids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from homefed.ledger.openapi import document, operations
from homefed.ledger.routes import ROUTES, Route
from testbed.claims import POOL, Chain, floor, resolution
from testbed.ledger import HUB_TOKEN, Ledger, LedgerProcess

TOKEN: Final = {"Authorization": f"Bearer {HUB_TOKEN}"}
EXAMPLES: Final = 5
"""Per operation and mode."""
load_all_checks()
EVERY_CHECK: Final = [check for check in CHECKS.get_all() if check.__name__ != "max_response_time"]
WHAT_IS_SIGNED_IS_NOT_IN_A_SCHEMA: Final = CHECKS.get_by_names(["positive_data_acceptance"])
"""A body that the schema allows is refused all the same where nobody signed it; a proof, where no tree is so large."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerProcess]:
    process = LedgerProcess(tmp_path_factory.mktemp("ledger"))
    process.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def held(running: LedgerProcess) -> dict[str, str]:
    """One of each kind of document; parameters of paths that lead to something."""
    chain = Chain()
    claim = chain.next({"a": 5})
    disputed = chain.next({"a": 7}, phase="pending")
    decided, limit = resolution(disputed.id, "post"), floor("a", -100)
    for one in (claim, disputed):
        _put(running, f"/v1/claims/{one.id}/lines/1", one.parts[0])
        _put(running, f"/v1/claims/{one.id}", one.body)
    _put(running, f"/v1/resolutions/{decided.id}", decided.body)
    _put(running, f"/v1/floors/{limit.id}", limit.body)
    return {
        "claim": claim.id,
        "resolution": decided.id,
        "floor": limit.id,
        "part": "1",
        "account": chain.account,
        "pool": POOL,
        "level": "0",
        "tile": "000.p/4",
    }


def _put(running: LedgerProcess, path: str, body: bytes) -> None:
    assert requests.put(running.url + path, data=body, headers=TOKEN, timeout=120).status_code == 201


@pytest.fixture(scope="module")
def schema(running: LedgerProcess) -> Any:
    return schemathesis.openapi.from_url(f"{running.url}/v1/openapi.json")


def each_route(routes: tuple[Route, ...] = ROUTES) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=[route.operation for route in routes])


MODES: Final = [
    (route, mode)
    for route in ROUTES
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or route.parameters or route.body
]


@pytest.mark.parametrize(("route", "mode"), MODES, ids=[f"{route.operation}-{mode.value}" for route, mode in MODES])
def test_whatever_the_document_allows_or_forbids_is_answered_as_it_says(
    running: LedgerProcess, held: dict[str, str], schema: Any, route: Route, mode: GenerationMode
) -> None:
    operation = schema[route.path][route.method]
    given_path = _with_slashes(route, held) if mode is GenerationMode.POSITIVE else None

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(mode, path_parameters=given_path))
    def answered(case: Case) -> None:
        case.call_and_validate(
            base_url=running.url,
            headers=TOKEN,
            checks=EVERY_CHECK,
            excluded_checks=WHAT_IS_SIGNED_IS_NOT_IN_A_SCHEMA,
            timeout=120,
        )

    answered()


def _with_slashes(route: Route, held: dict[str, str]) -> dict[str, str] | None:
    """Given, as schemathesis makes up none that hold a slash: all of the path's parameters, where one is an account."""
    names = [parameter.name for parameter in route.parameters if parameter.place == "path"]
    return {name: held[name] for name in names} if "account" in names else None


READ: Final = tuple(route for route in ROUTES if route.method == "GET")
QUERIES: Final = {"get_inclusion": {"leaf": 0}, "get_consistency": {"first": 1}, "get_statement": {"limit": 5}}
NOTHING_YET: Final = {"get_cosigned": 404}


@each_route(READ)
def test_what_is_there_is_answered_as_the_document_says(
    running: LedgerProcess, held: dict[str, str], schema: Any, route: Route
) -> None:
    names = [parameter.name for parameter in route.parameters if parameter.place == "path"]
    case = schema[route.path][route.method].Case(
        path_parameters={name: held[name] for name in names}, query=QUERIES.get(route.operation, {}), headers=TOKEN
    )
    answer = case.call(base_url=running.url, timeout=120)
    assert answer.status_code == NOTHING_YET.get(route.operation, 200), answer.text
    case.validate_response(answer)


async def test_every_route_of_the_router_is_in_the_document_and_the_other_way_round(ledger: Ledger) -> None:
    routed = {
        (route.method, getattr(route.resource, "canonical", ""))
        for route in ledger.application.router.routes()
        if route.method != "HEAD"
    }
    documented = {(method.upper(), path) for path, found in document()["paths"].items() for method in found}
    assert routed == documented
    assert len({route.operation for route in ROUTES}) == len(ROUTES) == len(operations())


async def test_the_served_document_is_the_generated_one(ledger: Ledger) -> None:
    status, body = await ledger.get("/v1/openapi.json")
    assert (status, json.loads(body)) == (200, document())


def test_every_refusal_is_a_problem_and_waits_are_given_in_seconds() -> None:
    for found in document()["paths"].values():
        for operation in found.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"]
                if status in ("429", "503"):
                    assert "Retry-After" in answer["headers"]


def test_the_document_names_each_way_in_where_it_is_needed() -> None:
    paths = document()["paths"]
    submitting = {key for need in paths["/v1/claims/{claim}"]["put"]["security"] for key in need}
    reading = {key for need in paths["/v1/accounts/{account}/statement"]["get"]["security"] for key in need}
    assert submitting == {"bearer", "ownBearer", "clientCertificate"}
    assert reading == submitting | {"homeSignature"}
    assert paths["/v1/totals"]["get"]["security"] == [{}]
