"""Every header that the service heeds is in its OpenAPI document, and does what that says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from serving import ROW_CANDIDATES, ROW_CONTEXT, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = Path(__file__).resolve().parents[2] / "service"
GOOD = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}
TENSORS = {"inputs": [{"name": "ad", "datatype": "BYTES", "shape": [1], "data": ["a1"]}]}
DOORS = {"/score": GOOD, "/v2/models/{name}/infer": TENSORS, "/v2/models/{name}/versions/{version}/infer": TENSORS}
# Keys have a scheme, x-gzip is an encoding, the other is of the web.
ELSEWHERE = {"x-api-key", "x-gzip", "x-content-type-options"}


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with serving(bundle) as running:
        yield running


@pytest.fixture(scope="module")
def operations(server: Server) -> dict[str, dict[str, Any]]:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    return {path: paths[path]["post"] for path in DOORS}


def headers_of(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"].lower(): one["schema"] for one in operation["parameters"] if one["in"] == "header"}


def ask(server: Server, door: str, **headers: str) -> httpx.Response:
    url = server.url + door.format(name="tiny-1", version="1")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(url, content=json.dumps(DOORS[door]), headers={"content-type": "application/json", **named})


def test_no_header_is_read_or_written_that_is_not_documented(operations: dict[str, dict[str, Any]]) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in SERVICE.rglob("*.py"))
    heeded = set(re.findall(r'b"(x-[a-z-]+|traceparent|server-timing)"', text)) - ELSEWHERE
    assert {"x-routing-key", "x-request-deadline-ms", "x-request-priority", "traceparent", "x-request-id"} <= heeded
    for operation in operations.values():
        assert heeded == headers_of(operation).keys() | {h.lower() for h in operation["responses"]["200"]["headers"]}


@pytest.mark.parametrize("door", DOORS)
def test_a_value_that_the_document_allows_is_taken_and_any_other_answered_as_it_says(
    server: Server, operations: dict[str, dict[str, Any]], door: str
) -> None:
    operation = operations[door]
    deadline, priority, key, trace = (
        headers_of(operation)[name]
        for name in ("x-request-deadline-ms", "x-request-priority", "x-routing-key", "traceparent")
    )
    good = [
        {"x_request_deadline_ms": str(deadline["maximum"])},
        *({"x_request_priority": value} for value in priority["enum"]),
        *({"x_routing_key": "k" * length} for length in (key["minLength"], key["maxLength"])),
        {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
        {"traceparent": "none of that form"},
    ]
    assert trace == {"type": "string"}
    for headers in good:
        answer = ask(server, door, **headers)
        assert answer.status_code == 200, headers
        own = {name for name in answer.headers if name.startswith("x-")} - ELSEWHERE
        assert own <= {name.lower() for name in operation["responses"]["200"]["headers"]}
    bad = [
        *(
            {"x_request_deadline_ms": value}
            for value in ("0", str(deadline["maximum"] + 1), "1.5", "-1", "", "0" * 5000)
        ),
        *({"x_request_deadline_ms": "0000000001" + "9" * digits} for digits in (1, 5000)),
        *({"x_request_priority": value} for value in ("high", "")),
        *({"x_routing_key": value} for value in ("", "k" * (key["maxLength"] + 1))),
    ]
    for headers in bad:
        answer = ask(server, door, **headers)
        assert answer.status_code == 400, headers
        assert answer.headers["content-type"] in operation["responses"]["400"]["content"]


def test_an_answer_that_says_when_to_come_again_is_documented_so(operations: dict[str, dict[str, Any]]) -> None:
    for operation in operations.values():
        for status in ("429", "503"):
            assert set(operation["responses"][status]["headers"]) == {"Retry-After"}
