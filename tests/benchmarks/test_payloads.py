"""Every form of a request asks for the same scores, whoever answers."""

import asyncio
import importlib
import json
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from benchmarks.serving.client import scores_of
from benchmarks.serving.contestants import ONE_ROW_FORMS, POINTWISE_FORMS, SHARED_FORMS
from benchmarks.serving.floor import main, work_of
from benchmarks.serving.job import CONTEXT, FIELDS, OWN, Job
from benchmarks.serving.payloads import (
    MSGPACK,
    SCHEMAS,
    random_batches,
    read_requests,
    write_requests,
)
from service.bundle import read_bundle
from service.pipeline import Pipeline
from service.scorer import Scorer


@pytest.fixture(scope="module")
def pipeline(built: Path) -> Pipeline:
    return Pipeline(Scorer(read_bundle(built / "bundle")), max_candidates=1000)


@pytest.mark.parametrize("schema", sorted({*SHARED_FORMS.values(), *POINTWISE_FORMS.values(), *ONE_ROW_FORMS.values()}))
@pytest.mark.parametrize("rows", [1, 60])
def test_the_service_scores_every_form_as_the_handwritten_job_does(
    pipeline: Pipeline, job: Job, schema: str, rows: int
) -> None:
    shared = schema not in POINTWISE_FORMS.values()
    (batch,) = random_batches(rows, 1, shared=shared)
    work = work_of(SCHEMAS[schema].request("/score", batch))
    pipeline.run(work)
    kind = MSGPACK if work.answer_packed else "application/json"
    np.testing.assert_allclose(scores_of(kind, work.answer), job(batch), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("server", "schema"), [("tutorial", "rows"), ("listwise", "listwise")])
def test_the_tutorials_score_as_the_handwritten_job_does(
    built: Path, job: Job, monkeypatch: pytest.MonkeyPatch, server: str, schema: str
) -> None:
    monkeypatch.setenv("BENCH_MODEL", str(built / "model.onnx"))
    app = importlib.import_module(f"benchmarks.serving.servers.{server}").app
    (batch,) = random_batches(7, 1, shared=True)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tutorial") as client:
            kind = {"content-type": SCHEMAS[schema].media_type}
            return await client.post("/score", content=SCHEMAS[schema].body(batch), headers=kind)

    answer = asyncio.run(ask())
    np.testing.assert_allclose(scores_of("application/json", answer.content), job(batch), atol=1e-7, rtol=0)


def test_rows_are_hot_and_cold_known_unseen_and_missing_and_the_same_every_time(job: Job) -> None:
    batches = random_batches(50, 4, shared=False)
    assert batches == random_batches(50, 4, shared=False)
    rows = [row for batch in batches for row in batch]
    assert all(list(row) == list(FIELDS) for row in rows)
    first_rows = job.ids([dict.fromkeys(FIELDS)])  # of each field's table: missing or unseen
    unknown = (job.ids(rows) == first_rows).mean(axis=0)
    assert (unknown > 0).mean() > 0.9
    assert 0.02 < unknown.mean() < 0.25
    assert len({row["C26"] for row in rows}) > 0.6 * len(rows)  # a large vocabulary has a long tail


def test_candidates_that_share_a_context_differ_in_their_own_fields_alone() -> None:
    (batch,) = random_batches(20, 1, shared=True)
    assert len({tuple(row[name] for name in CONTEXT) for row in batch}) == 1
    assert len({tuple(row[name] for name in OWN) for row in batch}) > 1
    assert (len(CONTEXT), len(OWN)) == (26, 13)


def test_columns_are_arrays_by_field_and_rows_objects_whatever_carries_them() -> None:
    (batch,) = random_batches(4, 1, shared=True)
    for schema in ("columns", "msgpack"):
        body = work_of(SCHEMAS[schema].request("/score", batch)).body
        document = json.loads(body) if schema == "columns" else msgspec.msgpack.decode(body)
        assert document["context"] == {name: batch[0][name] for name in CONTEXT}
        assert document["candidates"] == {name: [row[name] for row in batch] for name in OWN}
    document = json.loads(SCHEMAS["listwise"].body(batch))
    assert document["candidates"] == [{name: row[name] for name in OWN} for row in batch]
    assert json.loads(SCHEMAS["pointwise"].body(batch))["candidates"] == batch


def test_tensors_for_servers_without_null_hold_their_stand_ins() -> None:
    (batch,) = random_batches(3, 1, shared=False)
    batch[1]["I3"] = batch[2]["C5"] = None
    numbers, texts = json.loads(SCHEMAS["oip"].body(batch))["inputs"]
    assert numbers["data"][13 + 2] == -1e30
    assert texts["data"][2 * 26 + 4] == ""
    assert (numbers["shape"], texts["shape"]) == ([3, 13], [3, 26])


def test_requests_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    requests = [b"a", b"", b"\r\n\r\n\x00" * 1000]
    write_requests(tmp_path / "requests", requests)
    assert read_requests(tmp_path / "requests") == requests


def test_the_floor_runs_requests_of_the_bundle_and_prices_context_fields(built: Path, tmp_path: Path) -> None:
    (batch,) = random_batches(5, 1, shared=True)
    write_requests(tmp_path / "many", [SCHEMAS["columns"].request("/score", batch)])
    few = {"context": {"C19": batch[0]["C19"]}, "candidates": {name: [row[name] for row in batch] for name in OWN}}
    write_requests(tmp_path / "few", [b"POST /score HTTP/1.1\r\n\r\n" + json.dumps(few).encode()])
    many = str(tmp_path / "many")
    spec = {name: str(built / name) for name in ("bundle", "few")} | {"seconds": 0.1, "cases": {"rank columns": many}}
    found = main(spec | {"context": {"rank": [many, str(tmp_path / "few")]}})
    case = found["cases"]["rank columns"]
    assert case["cpu_us"] > 0
    assert set(case["stages_us"]) == {"decode", "encode", "infer", "write"}
    assert sum(case["stages_us"].values()) > 0
    assert found["context"]["rank"]["pairs"] > 0
