"""The table of errors, and the application before it has a model."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

from service import errors
from service.app import create_app
from service.errors import PROBLEMS, ModelOutputError, NotReadyError, ServiceError, problem_bytes, problem_of
from service.features import errors as feature_errors
from service.features.errors import FeatureError, FieldValueError, RequestError, SchemaError
from service.settings import load_settings
from service.wire import AnswerWriter

if TYPE_CHECKING:
    from service.app import ServiceApp


def subclasses(module: object, root: type[Exception]) -> list[type[Exception]]:
    return [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, root) and kind.__module__ == module.__name__  # type: ignore[attr-defined]
    ]


def test_every_error_of_the_tree_has_a_line_in_the_table() -> None:
    kinds = [*subclasses(errors, ServiceError), *subclasses(errors, RequestError)]
    kinds += subclasses(feature_errors, RequestError)
    assert len(kinds) > 12
    assert set(kinds) - {ServiceError} == set(PROBLEMS)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    for kind in subclasses(errors, ServiceError) + subclasses(errors, RequestError):
        assert kind.__name__ in errors.__doc__


def test_codes_are_distinct_and_statuses_are_errors() -> None:
    codes = [problem.code for problem in PROBLEMS.values()]
    assert len(set(codes)) == len(codes)
    assert all(400 <= problem.status < 600 for problem in PROBLEMS.values())


def test_a_subclass_answers_as_its_parent() -> None:
    class StrangeValueError(FieldValueError):
        pass

    assert problem_of(StrangeValueError("ad", "text", "a hat")) is PROBLEMS[FieldValueError]


@pytest.mark.parametrize("error", [ValueError("secret"), SchemaError("secret"), FeatureError("secret"), KeyError(1)])
def test_an_unexpected_error_tells_the_client_nothing(error: Exception) -> None:
    document = msgspec.json.decode(problem_bytes(error, "r-1"))
    assert document["status"] == 500
    assert "secret" not in str(document)
    assert document["request_id"] == "r-1"


def test_quoted_text_is_cut_and_encodable() -> None:
    document = msgspec.json.decode(problem_bytes(FieldValueError("x" * 9999, "\udc80", "y")))
    assert len(document["where"]) < 500
    assert document["where"].endswith("... (9999 characters)")
    assert document["expected"] == "\\udc80"


@pytest.mark.parametrize("write", ["json", "msgpack"])
@pytest.mark.parametrize("score", ["nan", "inf", "-inf"])
def test_a_score_that_is_not_finite_is_never_written(write: str, score: str) -> None:
    import numpy as np

    scores = np.array([0.5, float(score)], np.float32)
    with pytest.raises(ModelOutputError, match="not finite"):
        getattr(AnswerWriter("m"), write)("r", scores, None)


def ask(app: ServiceApp, method: str, path: str) -> httpx.Response:
    async def talk() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, json={"candidates": [{}]})

    return asyncio.run(talk())


def waiting_app() -> ServiceApp:
    """The application before its lifespan has begun to load the bundle."""
    return create_app(load_settings(bundle=Path("nowhere")))


@pytest.mark.parametrize("path", ["/readyz", "/startupz", "/model", "/score"])
def test_before_there_is_a_model_the_answer_is_503_with_the_reason(path: str) -> None:
    answer = ask(waiting_app(), "POST" if path == "/score" else "GET", path)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["got"] == "the bundle is being read and checked"


def test_before_there_is_a_model_the_process_is_alive_and_explains_itself() -> None:
    app = waiting_app()
    assert ask(app, "GET", "/livez").json() == {"status": "alive", "model": None}
    assert "reaction_ready 0.0" in ask(app, "GET", "/metrics").text
    assert "/score" in ask(app, "GET", "/docs").text
    assert ask(app, "GET", "/openapi.json").json()["paths"]["/score"]["post"]["requestBody"]


def test_a_bundle_that_cannot_be_loaded_is_told_by_the_probes_and_to_the_owner() -> None:
    told = asyncio.Event()
    app = create_app(load_settings(bundle=Path("nowhere")), on_failure=told.set)

    async def fail() -> None:
        async with app.router.lifespan_context(app), asyncio.timeout(20):
            await told.wait()

    asyncio.run(fail())
    assert app.runtime.failure is not None
    assert "expected the directory of a bundle, got nothing" in app.runtime.failure
    assert app.runtime.model is None


def test_what_fails_inside_of_a_route_is_answered_without_internals() -> None:
    app = waiting_app()

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret of the inside")

    answer = ask(app, "GET", "/broken")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


def test_not_ready_is_an_error_of_the_service() -> None:
    assert issubclass(NotReadyError, ServiceError)
