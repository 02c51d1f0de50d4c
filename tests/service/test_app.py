"""What the service answers, asked over real sockets; the expected scores are worked out by hand."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from serving import (
    BASE_RATE,
    COUNTS,
    DROPPED,
    FIELDS,
    MODEL_ID,
    ROOT,
    ROW_CANDIDATES,
    ROW_CONTEXT,
    HandModel,
    build_encoder,
)

from service.app import VERSION
from service.documents.examples import examples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

COLUMNS = {name: [row.get(name) for row in ROW_CANDIDATES] for name in ("ad", "price", "tags")}
FORMS = {
    "rows": {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES},
    "columns": {"context": ROW_CONTEXT, "candidates": COLUMNS},
    "pointwise rows": {"candidates": [{**ROW_CONTEXT, **row} for row in ROW_CANDIDATES]},
    "pointwise columns": {"candidates": {**COLUMNS, **{name: [value] * 3 for name, value in ROW_CONTEXT.items()}}},
    "empty context": {"context": {}, "candidates": [{**ROW_CONTEXT, **row} for row in ROW_CANDIDATES]},
    "null context": {"context": None, "candidates": [{**ROW_CONTEXT, **row} for row in ROW_CANDIDATES]},
}


def by_hand(model: HandModel, context: Mapping[str, object], candidates: Sequence[Mapping[str, object]]) -> list[float]:
    return [model.score(context, candidate) for candidate in candidates]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
def test_every_form_of_a_request_gets_the_scores_worked_out_by_hand(
    client: httpx.Client, hand_model: HandModel, form: str, packed: bool
) -> None:
    if packed:
        body, kind = msgspec.msgpack.encode(FORMS[form]), "application/msgpack"
        answer = client.post("/score", content=body, headers={"content-type": kind})
        document = msgspec.msgpack.decode(answer.content)
    else:
        kind = "application/json"
        answer = client.post("/score", json=FORMS[form])
        document = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert document["model"] == MODEL_ID
    assert document.keys() == {"model", "request_id", "scores"}
    np.testing.assert_allclose(document["scores"], by_hand(hand_model, ROW_CONTEXT, ROW_CANDIDATES), atol=1e-6)


def test_scores_are_written_as_the_shortest_text_of_a_float32(client: httpx.Client) -> None:
    text = client.post("/score", json=FORMS["rows"]).text
    written = re.search(r'"scores":\[(.*?)\]', text)
    assert written is not None
    for score in written[1].split(","):
        assert score == np.format_float_positional(np.float32(score), unique=True, trim="0")


def test_packed_scores_are_the_same_float32_as_written_ones(client: httpx.Client) -> None:
    written = client.post("/score", json=FORMS["rows"]).json()["scores"]
    packed = client.post("/score", json=FORMS["rows"], headers={"accept": "application/msgpack"})
    assert packed.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(packed.content)["scores"] == [float(np.float32(score)) for score in written]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/msgpack", "application/msgpack"),
        ("application/vnd.msgpack", "application/msgpack"),
        ("application/json, application/msgpack", "application/json"),
        ("text/html", "application/json"),
    ],
)
def test_accept_chooses_the_form_of_the_answer(client: httpx.Client, accept: str, kind: str) -> None:
    answer = client.post("/score", json=FORMS["rows"], headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


def test_top_k_names_the_best_candidates_best_first(client: httpx.Client, hand_model: HandModel) -> None:
    scores = by_hand(hand_model, ROW_CONTEXT, ROW_CANDIDATES)
    best = sorted(range(3), key=lambda place: -scores[place])
    for top_k in (1, 2, 3, 100, 2**80):
        answer = client.post("/score", json={**FORMS["rows"], "top_k": top_k}).json()
        assert answer["ranking"] == best[:top_k]


def test_equal_candidates_are_ranked_in_the_order_of_the_request(client: httpx.Client, hand_model: HandModel) -> None:
    ads = [{"ad": "a1"}, {"ad": "a2"}] * 40
    answer = client.post("/score", json={"candidates": ads, "top_k": 80}).json()
    first = hand_model.score({}, ads[0]) > hand_model.score({}, ads[1])
    odd, even = list(range(1, 80, 2)), list(range(0, 80, 2))
    assert answer["ranking"] == (even + odd if first else odd + even)


def test_a_given_request_id_comes_back_in_the_answer_and_in_a_header(client: httpx.Client) -> None:
    for request_id in ("r-81", 'quote"and\\slash', "x" * 128):
        answer = client.post("/score", json={**FORMS["rows"], "request_id": request_id, "routing_key": "u1"})
        assert answer.json()["request_id"] == answer.headers["x-request-id"] == request_id


def test_made_request_ids_differ(client: httpx.Client) -> None:
    answers = [client.post("/score", json={**FORMS["rows"], "request_id": None}) for _ in range(50)]
    ids = {answer.json()["request_id"] for answer in answers}
    assert len(ids) == 50
    assert {answer.headers["x-request-id"] for answer in answers} == ids


def test_a_dropped_field_may_be_sent_and_changes_nothing(client: httpx.Client) -> None:
    plain = client.post("/score", json=FORMS["rows"]).json()["scores"]
    body = {
        "context": {**ROW_CONTEXT, "site": "s"},
        "candidates": [{**row, "colour": ["anything", {"at": "all"}]} for row in ROW_CANDIDATES],
    }
    assert client.post("/score", json=body).json()["scores"] == plain


def test_text_with_colons_and_quotes_is_no_repeated_member(client: httpx.Client) -> None:
    for text in ("12:30", '":', ' :"a":', "\n:", '{"a":1,"a":1}', "::::"):
        answer = client.post("/score", json={"context": {"user": text}, "candidates": [{"ad": text, "tags": [text]}]})
        assert answer.status_code == 200, answer.text


def test_whitespace_anywhere_between_tokens_is_fine(client: httpx.Client) -> None:
    plain = client.post("/score", json=FORMS["rows"]).json()["scores"]
    body = json.dumps(FORMS["rows"], indent="\t", separators=(" ,\r\n", "\n :\t"))
    answer = client.post("/score", content=body, headers={"content-type": "Application/JSON ; charset=UTF-8"})
    assert answer.json()["scores"] == plain


def test_model_describes_what_is_served(client: httpx.Client) -> None:
    answer = client.get("/model").json()
    assert answer["id"] == MODEL_ID
    assert answer["training"] == {"metrics": {"validation": {"fused": {"auc": 0.75}}}}
    assert answer["dropped_fields"] == list(DROPPED)
    assert answer["features_digest"] == answer["files"]["features.json"]["sha256"]
    assert {"model.onnx", "golden.jsonl", "reference.json"} <= answer["files"].keys()
    uses = {field.name: "used" for field in FIELDS} | dict.fromkeys(DROPPED, "ignored") | {"position": "training only"}
    assert {field["name"]: (field["side"], field["kind"], field["use"]) for field in answer["fields"]} == {
        field.name: (field.side, field.kind, uses[field.name]) for field in FIELDS
    }
    assert {field["name"]: field["max_values"] for field in answer["fields"]}["tags"] == 3


def test_probes_name_the_served_model(client: httpx.Client) -> None:
    for path, status in (("/livez", "alive"), ("/readyz", "ready"), ("/startupz", "started")):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": status, "model": MODEL_ID})


def documented(client: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def test_the_documented_examples_are_answered_as_documented(client: httpx.Client) -> None:
    operation = documented(client)["paths"]["/score"]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["examples"]
    answered = operation["responses"]["200"]["content"]["application/json"]["examples"]
    assert asked.keys() == answered.keys() == {"ranking", "columns", "pointwise"}
    for name, example in asked.items():
        answer = client.post("/score", json=example["value"]).json()
        assert answer["scores"] == answered[name]["value"]["scores"]
        assert answer.get("ranking") == answered[name]["value"].get("ranking")


def test_the_documentation_holds_no_value_that_training_or_golden_rows_saw(client: httpx.Client) -> None:
    seen = {token for name in ("user", "ad", "tags", "site", "colour") for token in COUNTS[name]} - {"7"}
    seen |= {"golden-user", "unseen"}
    text = json.dumps(documented(client)) + client.get("/docs").text
    assert [token for token in seen if f'"{token}"' in text or f"&quot;{token}&quot;" in text] == []


def test_the_documentation_names_the_fields_of_each_side(client: httpx.Client) -> None:
    schemas = documented(client)["components"]["schemas"]
    assert schemas["Context"]["properties"].keys() == {"user", "hour", "site"}
    assert schemas["Candidate"]["properties"].keys() == {"ad", "price", "tags", "colour"}
    assert "position" not in json.dumps(documented(client))


def test_the_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script" not in answer.text
    assert re.findall(r'(?:src|href)="(?!openapi\.json)', answer.text) == []
    assert "/score" in answer.text
    assert "curl" in answer.text


def test_every_documented_reference_exists(client: httpx.Client) -> None:
    document = documented(client)
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()
    assert {"ScoreRequest", "ScoreAnswer", "ProblemDocument", "RankingRequest", "PointwiseRequest"} <= references | set(
        document["components"]["schemas"]
    )


def test_examples_exist_for_a_model_whatever_sides_it_has() -> None:
    made = examples(build_encoder())
    assert [example.name for example in made] == ["ranking", "columns", "pointwise"]
    only_context = build_encoder().for_serving(["ad", "price", "tags"])
    assert [example.name for example in examples(only_context)] == ["ranking", "pointwise"]
    only_candidates = build_encoder().for_serving(["user", "hour"])
    assert [example.name for example in examples(only_candidates)] == ["pointwise"]


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def test_the_base_rate_of_training_is_shown_beside_the_scores(client: httpx.Client) -> None:
    assert f'reaction_reference_base_rate{{model="{MODEL_ID}"}} {BASE_RATE}' in client.get("/metrics").text
