"""What `/metrics` says: exactly what clients counted, and what the features and scores of live requests are."""

from __future__ import annotations

import json
import subprocess
import sys
from bisect import bisect_left
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import wait_for
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from serving import (
    EDGES,
    MODEL_ID,
    ROOT,
    ROW_CANDIDATES,
    ROW_CONTEXT,
    HandModel,
    Server,
    build_encoder,
    environment,
    samples,
    serving,
    talk,
)

from service.counts.cells import Cells
from service.counts.feature_health import (
    SAMPLED_ROWS,
    SCORE_BOUNDS,
    FeatureHealth,
    FieldCounts,
    ScoreRepeats,
    field_ratios,
    score_bounds,
)
from service.counts.histogram import Histogram
from service.counts.model_counts import SECONDS_BOUNDS
from service.metrics import CATALOGUE, OUTCOMES, STAGES, ServiceMetrics, metrics_markdown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}
OF_A_TRIAL = ("reaction_canary_", "reaction_shadow_")  # see tests/service/trial
MODEL = f'model="{MODEL_ID}"'


@pytest.fixture
def fresh(bundle: Path) -> Iterator[Server]:
    with serving(bundle) as running:
        yield running


def scrape(server: Server) -> dict[str, float]:
    return samples(httpx.get(f"{server.url}/metrics").text)


SENT = {  # what to send, by name: method, path, body and content type
    "good": ("POST", "/score", json.dumps(GOOD), "application/json"),
    "malformed": ("POST", "/score", "{", "application/json"),
    "without candidates": ("POST", "/score", json.dumps({"candidates": []}), "application/json"),
    "text": ("POST", "/score", json.dumps(GOOD), "text/plain"),
    "too large": ("POST", "/score", "x" * 5_000_000, "application/json"),
    "nowhere": ("POST", "/nope/7", json.dumps(GOOD), "application/json"),
    "another method": ("PUT", "/score", json.dumps(GOOD), "application/json"),
}


def ask_for_all(server: Server, seed: int) -> tuple[Counter[tuple[str, int]], int]:
    """Send everything in random order; gives back answers by route and status, and the scores received."""
    seen: Counter[tuple[str, int]] = Counter()
    scores = 0
    names = [*SENT] * 6 + ["good"] * 20
    np.random.default_rng(seed).shuffle(names)
    with httpx.Client(base_url=server.url) as client:
        for name in names:
            method, path, body, kind = SENT[name]
            answer = client.request(method, path, content=body, headers={"content-type": kind})
            seen[path if path == "/score" else "other", answer.status_code] += 1
            scores += len(answer.json().get("scores", ()))
    return seen, scores


def test_requests_are_counted_exactly_as_their_clients_counted_them(fresh: Server) -> None:
    with ThreadPoolExecutor(4) as clients:
        counts = list(clients.map(lambda seed: ask_for_all(fresh, seed), range(4)))
    seen = sum((count for count, _ in counts), Counter())
    scores = sum(number for _, number in counts)
    counted = scrape(fresh)
    assert len(seen) == 7
    for (route, status), count in seen.items():
        assert counted[f'reaction_requests_total{{route="{route}",status="{status}"}}'] == count
    score_counts = [v for name, v in counted.items() if name.startswith('reaction_requests_total{route="/score"')]
    assert sum(score_counts) == sum(count for (route, _), count in seen.items() if route == "/score")
    ok = seen["/score", 200]
    assert counted[f"reaction_candidates_total{{{MODEL}}}"] == scores == 3 * ok
    assert counted[f"reaction_request_candidates_count{{{MODEL}}}"] == ok
    assert counted[f"reaction_score_count{{{MODEL}}}"] == scores
    for stage in STAGES:
        assert counted[f'reaction_stage_seconds_count{{{MODEL},outcome="ok",stage="{stage}"}}'] == ok
    # A body that was read but could not be scored has a total and a queue, and a decode if it had the right shape.
    refused = {stage: f'reaction_stage_seconds_count{{{MODEL},outcome="refused",stage="{stage}"}}' for stage in STAGES}
    assert counted[refused["total"]] == counted[refused["queue"]] == seen["/score", 400] + seen["/score", 422]
    assert counted[refused["decode"]] == seen["/score", 422]
    assert refused["infer"] not in counted


def test_a_client_that_hangs_up_before_its_answer_is_counted_as_gone(fresh: Server) -> None:
    talk(
        fresh.address,
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{",
    )
    name = 'reaction_requests_total{route="/score",status="499"}'
    for _ in range(100):
        counted = scrape(fresh)
        if name in counted:
            break
    assert counted[name] == 1


def test_stages_add_up_to_the_total(fresh: Server) -> None:
    with httpx.Client(base_url=fresh.url) as client:
        for _ in range(20):
            client.post("/score", json=GOOD)
    counted = scrape(fresh)
    sums = {s: counted[f'reaction_stage_seconds_sum{{{MODEL},outcome="ok",stage="{s}"}}'] for s in STAGES}
    assert all(value > 0 for value in sums.values())
    assert sum(sums[stage] for stage in STAGES[:-1]) == pytest.approx(sums["total"])


def test_missing_and_unseen_values_are_counted_for_each_field(fresh: Server, hand_model: HandModel) -> None:
    scores = []
    with httpx.Client(base_url=fresh.url) as client:
        for _ in range(3):
            client.post("/score", json=GOOD)
            scores += [hand_model.score(ROW_CONTEXT, row) for row in ROW_CANDIDATES]
        client.post("/score", json={"candidates": [{"user": "new", "tags": ["n", "x"]}, {"hour": ""}]})
        scores += [hand_model.score({}, {"user": "new", "tags": ["n", "x"]}), hand_model.score({}, {})]
    counted = scrape(fresh)
    expected = {  # values, missing, out of vocabulary
        "user": (3 + 2, 0 + 1, 0 + 1),
        "hour": (3 + 2, 0 + 2, 0),
        "ad": (9 + 2, 0 + 2, 3 + 0),
        "price": (9 + 2, 3 + 2, 0),
        "tags": (9 + 2, 3 + 1, 3 + 1),
    }
    for name, numbers in expected.items():
        for kind, number in zip(("values", "missing", "out_of_vocabulary"), numbers, strict=True):
            assert counted[f'reaction_field_{kind}_total{{field="{name}",{MODEL}}}'] == number
    fields = {name.split('field="')[1].split('"')[0] for name in counted if name.startswith("reaction_field_values")}
    assert fields == set(expected)  # dropped fields and training-only ones have no counts
    assert counted[f'reaction_field_reference_missing_ratio{{field="user",{MODEL}}}'] == 0.125
    assert counted[f'reaction_field_reference_out_of_vocabulary_ratio{{field="user",{MODEL}}}'] == 0.0625
    for bound in (0.25, 0.5, 0.75, 1.0):
        under = sum(score <= bound for score in scores)
        assert counted[f'reaction_score_bucket{{le="{bound}",{MODEL}}}'] == under
    assert counted[f"reaction_score_sum{{{MODEL}}}"] == pytest.approx(sum(scores), abs=1e-5)


def test_a_scrape_holds_every_documented_metric_and_no_other(bundle: Path) -> None:
    feedback = {"feedback_secret": "a-secret-of-the-test", "feedback_ratio": 1, "feedback_window_seconds": 1}
    with serving(bundle, **feedback) as server, httpx.Client(base_url=server.url) as client:
        answer = client.post("/score", json={**GOOD, "top_k": 2}).json()
        client.post("/feedback", json={"token": answer["feedback_tokens"][0], "click": True})
        # What is known once the window is over is there last.
        wait_for(lambda: "\nreaction_feedback_auc{" in client.get("/metrics").text, "the window is over")
        text = client.get("/metrics").text
    families = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        families[name] = family
    ours = {name for name in families if not name.startswith("process_")}
    assert ours == CATALOGUE.keys()
    for name in ours:
        family, row = families[name], CATALOGUE[name]
        bounds = {"le"} if row.type == "histogram" else set()
        assert (family.type, family.documentation) == (row.type, row.help)
        labels = {label for sample in family.samples for label in sample.labels} - bounds
        assert labels == set(row.labels) or (name.startswith(OF_A_TRIAL) and not family.samples)
        assert f"| `{name}` | {row.type} | {', '.join(row.labels)} | {row.help} |" in metrics_markdown()


def test_openmetrics_is_spoken_where_it_is_asked_for(server: Server) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    answer = httpx.get(f"{server.url}/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert httpx.get(f"{server.url}/metrics").headers["content-type"].startswith("text/plain")


def test_the_catalogue_can_be_printed() -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "service", "metrics"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert outcome.stdout.strip() == metrics_markdown()


def test_nothing_is_registered_globally() -> None:
    before = {family.name for family in REGISTRY.collect()}
    metrics = ServiceMetrics()
    metrics.count_request("/score", 200)
    assert {family.name for family in REGISTRY.collect()} == before
    assert not any(name.startswith("reaction_") for name in before)


def test_latency_buckets_begin_at_ten_microseconds_and_grow_geometrically() -> None:
    ratios = np.array(SECONDS_BOUNDS[1:]) / np.array(SECONDS_BOUNDS[:-1])
    assert SECONDS_BOUNDS[0] == 1e-5
    assert SECONDS_BOUNDS[-1] > 10
    np.testing.assert_allclose(ratios, 2**0.5, rtol=0.01)
    assert "total" in STAGES
    assert "ok" in OUTCOMES


@given(
    st.lists(st.floats(0, 20, width=32), max_size=40),
    st.lists(st.floats(0, 20, width=32), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_a_histogram_counts_one_by_one_and_in_arrays_alike(values: list[float], bounds: list[float]) -> None:
    single, batched = Histogram(Cells(), "a", bounds), Histogram(Cells(), "b", bounds)
    for value in values:
        single.observe(value)
    batched.observe_array(np.array(values, np.float32))
    brute = [float(sum(value <= bound for value in values)) for bound in (*bounds, float("inf"))]
    assert single.cumulative() == batched.cumulative() == brute
    assert single.sum == pytest.approx(sum(values))
    assert batched.sum == pytest.approx(sum(values))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_batched_field_counts_equal_counting_value_by_value(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    encoder = build_encoder()
    cells = Cells()
    fields = {name: FieldCounts(cells, name, ratios) for name, ratios in field_ratios(encoder, {}).items()}
    repeats = ScoreRepeats(cells, "r")
    health = FeatureHealth(cells, encoder, fields, Histogram(cells, "s", SCORE_BOUNDS), repeats=repeats, bins={})
    brute = {name: [0, 0, 0] for name in health.fields}
    batch: list[Any] = []
    for size in sizes:
        matrices = {
            "context": rng.integers(0, 4, (size if rng.random() < 0.3 else 1, encoder.width("context")), np.int32),
            "candidate": rng.integers(0, 4, (size, encoder.width("candidate")), np.int32),
        }
        for side, ids in matrices.items():
            for column in encoder.columns(side):  # type: ignore[arg-type]
                part = ids[:, column.first : column.first + column.width]
                brute[column.name][0] += len(part)
                brute[column.name][1] += sum(row[0] == 0 for row in part)
                brute[column.name][2] += sum(1 in row for row in part)
        batch.append((matrices["context"], matrices["candidate"], rng.random(size, np.float32)))
        if rng.random() < 0.1 or sum(len(scores) for *_, scores in batch) > SAMPLED_ROWS - max(sizes):
            health.count(*map(np.concatenate, zip(*batch, strict=True)))
            batch.clear()
    if batch:
        health.count(*map(np.concatenate, zip(*batch, strict=True)))
    assert {n: [c.values, c.missing, c.out_of_vocabulary] for n, c in health.fields.items()} == brute


def test_score_buckets_are_those_of_training_where_it_had_usable_ones() -> None:
    assert score_bounds({"score_histogram": {"edges": [0, 0.5, 1]}}) == (0.5, 1.0)
    for reference in ({}, {"score_histogram": {"edges": []}}, {"score_histogram": {"edges": [0, 1, 0.5]}}):
        assert score_bounds(reference) == SCORE_BOUNDS
    assert bisect_left(EDGES, 1.0) == 0
