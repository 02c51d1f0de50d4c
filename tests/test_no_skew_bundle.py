"""Raw values to scores through every door of an exported bundle = the unfused fusion form in float64.

The reference looks every value up on its own with the run's encoder and scores the ids with the form as it was
trained; `test_no_skew` holds that look-up against the contract. Nothing of the merging, the graph, the bundle or the
arranging of rows and columns is shared with it.
"""

import json
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from run_directory import DROPPED, FIELDS, MUTED, RATE, write_run

from model_export.export import export_run
from service.bundle import GoldenRow, read_bundle
from service.features import FieldValueError
from service.pipeline import Pipeline, Work
from service.scorer import Scorer

Row = dict[str, Any]
Doors = dict[str, Callable[[Row, list[Row]], np.ndarray]]

TOLERANCE = 1e-6
SIDES = ("context", "candidate")
SERVED = {side: [f for f in FIELDS if f.side == side and f.name not in {DROPPED, MUTED, "position"}] for side in SIDES}
KINDS = {field.name: field.kind for side in SIDES for field in SERVED[side]}


class Made(NamedTuple):
    """An exported bundle, and what it was made from."""

    scorer: Scorer
    reference: Callable[[Row, list[Row]], np.ndarray]
    ids_of: Callable[[str, Any], np.ndarray]
    doors: Doors


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("no_skew")
    exported = export_run(write_run(place / "run"), place / "bundle")
    encoder = exported.loaded.encoder
    form = deepcopy(exported.loaded.form).double().serving()

    def ids_of(name: str, raw: Any) -> np.ndarray:
        return encoder.encode_values(name, [raw])[0]

    def row_of(side: str, raw: Row) -> np.ndarray:
        # what the served model does not read counts as missing: it must have no say in the score
        own = [field.name for field in FIELDS if field.side == side]
        return np.concatenate([ids_of(name, raw.get(name) if name in KINDS else None) for name in own])

    def reference(context: Row, candidates: list[Row]) -> np.ndarray:
        scores = []
        for candidate in candidates:
            ids = [
                torch.from_numpy(row_of(side, raw)[None]) for side, raw in zip(SIDES, (context, candidate), strict=True)
            ]
            with torch.no_grad():
                logit = float(form(*ids)) + math.log(RATE)
            scores.append(1 / (1 + math.exp(-logit)))
        return np.array(scores)

    scorer = Scorer(read_bundle(Path(place / "bundle")))
    scorer.self_test()
    return Made(scorer, reference, ids_of, doors_of(scorer))


def doors_of(scorer: Scorer) -> Doors:
    """Every way from raw values to scores, by name. The first is what the others are held against."""
    pipeline = Pipeline(scorer, max_candidates=100)

    def columns(rows: list[Row]) -> dict[str, list[Any]]:
        names = {name for row in rows for name in row} or {"item"}
        return {name: [row.get(name) for row in rows] for name in names}

    def crossed(context: Row, candidates: list[Row]) -> np.ndarray:
        body = json.dumps({"context": context, "candidates": candidates}).encode()
        work = Work(body, request_id="", packed=False, answer_packed=False)
        pipeline.run(work)
        return work.scores

    def golden(context: Row, candidates: list[Row]) -> np.ndarray:
        scores = []
        for candidate in candidates:
            line = msgspec.json.encode(
                GoldenRow(context=context, candidate=candidate, context_ids=[], candidate_ids=[], pctr=0.5)
            )
            row = msgspec.json.decode(line, type=GoldenRow)
            scores.append(scorer.score(row.context, [row.candidate])[0])
        return np.array(scores)

    def pointwise(context: Row, candidates: list[Row]) -> list[Row]:
        return [{**context, **candidate} for candidate in candidates]

    return {
        "rows": scorer.score,
        "columns": lambda context, candidates: scorer.score(context, columns(candidates)),
        "JSON": crossed,
        "golden": golden,
        "one by one": lambda context, candidates: np.array([scorer.score(context, [one])[0] for one in candidates]),
        "pointwise": lambda context, candidates: scorer.score(None, pointwise(context, candidates)),
        "pointwise columns": lambda context, candidates: scorer.score(None, columns(pointwise(context, candidates))),
        "pointwise one by one": lambda context, candidates: np.array(
            [scorer.score({}, [one])[0] for one in pointwise(context, candidates)]
        ),
    }


WRITTEN = {"JSON", "golden"}
BIT_EQUAL = {"columns", "JSON"}  # the same ids in the same shapes; the others make matrices of other shapes

any_text = st.text(max_size=6) | st.text(st.sampled_from("\0\n|\u2028\ufeffé\U0001d4b3\U0010ffff1"), max_size=3)
known = {
    "user": st.integers(0, 45).map("u{}".format),
    "item": st.integers(-3, 40) | st.integers(0, 40).map(str),
    "tags": st.sampled_from(["a", "b", "ü", "d", "e", "", "new"]),
    "genres": st.sampled_from(["x", "y", "z", "", "new"]),
    "hour": st.sampled_from([6, 6.0, "6", "6e0", math.nextafter(6, 0), 12, 17, 18.0, "+18."]),
    "price": st.sampled_from([0.5, ".5", "0.50", 1.5, math.nextafter(1.5, 2), 10, "1e1", -0.0, "-0"]),
}
integers = st.integers(-(2**66), 2**66) | st.sampled_from([10**300, -(10**308), 2**53 + 1, -(2**63), 2**64])
numbers = integers | st.floats(allow_nan=False, allow_infinity=False)
numeric_text = st.from_regex(r"[+-]?[0-9]{1,4}(\.[0-9]{0,4})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


def good_values(name: str) -> st.SearchStrategy[Any]:
    missing = st.none() | st.just("")
    match KINDS[name]:
        case "numeric":
            return missing | known[name] | numbers | numbers.map(str) | numeric_text
        case "multi_valued":
            parts = st.lists(known[name] | any_text | integers, max_size=5)
            joined = st.lists(known[name] | any_text, max_size=5).map("|".join)
            return missing | parts | joined | any_text | integers
        case _:
            return missing | known[name] | any_text | integers | numeric_text


anything = st.none() | st.booleans() | any_text | integers | numbers | st.just("\ud800")
anything |= st.lists(st.none() | st.booleans() | any_text | numbers, max_size=4) | st.dictionaries(any_text, st.none())
raws = anything | st.floats() | numeric_text | st.sampled_from([10**400, 10**639, 10**640, "1e999", "nan", " 1", "1_0"])


def rows_of(side: str) -> st.SearchStrategy[Row]:
    served = {field.name: good_values(field.name) for field in SERVED[side]}
    ignored = {name: anything for name in (DROPPED, MUTED) if side == "candidate"}
    return st.fixed_dictionaries({}, optional={**served, **ignored})


@settings(max_examples=200, deadline=None)
@given(rows_of("context"), st.lists(rows_of("candidate"), min_size=1, max_size=7))
@example({}, [{}])
@example({"hour": -0.0, "tags": "a|\0|\n|e"}, [{"price": -0.0}, {"price": "1e308"}, {"item": 10**639}, {}])
@example({"user": "\U0001d4b3", "tags": ["a", "a", "", "b", "e", "ü"]}, [{"genres": "x||y|z"}, {"genres": ["y"]}])
@example({"user": "u1"}, [{"muted": float("nan"), "noise": {"a": [True]}}, {"muted": None}])
def test_every_door_gives_the_scores_of_the_unfused_form(made: Made, context: Row, candidates: list[Row]) -> None:
    expected = made.reference(context, candidates)
    scores = {
        name: door(context, candidates)
        for name, door in made.doors.items()
        if name not in WRITTEN or fits_json([context, *candidates])
    }
    for name, found in scores.items():
        assert (found.dtype, found.shape) == (np.float32, expected.shape), name
        assert np.abs(found - expected).max() <= TOLERANCE, name
        assert np.abs(found - scores["rows"]).max() <= TOLERANCE, name
        if name in BIT_EQUAL:
            assert found.tobytes() == scores["rows"].tobytes(), name


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(sorted(KINDS)), raws, st.integers(0, 2))
@example("item", 1.0, 1)
@example("user", True, 0)
@example("tags", ["a", None], 0)
@example("genres", "x|\ud800", 2)
@example("price", 10**309, 1)
@example("hour", "1e999", 0)
@example("price", float("nan"), 0)
def test_what_one_door_refuses_all_refuse(made: Made, name: str, raw: Any, place: int) -> None:
    context: Row = {"user": "u1"}
    candidates: list[Row] = [{"item": 1}, {"item": 2}, {"item": 3}]
    (context if any(field.name == name for field in SERVED["context"]) else candidates[place])[name] = raw
    try:
        made.ids_of(name, raw)
    except FieldValueError:
        for door in made.doors if fits_json([context, *candidates]) else set(made.doors) - WRITTEN:
            with pytest.raises(FieldValueError, match=rf"^(context|candidates(\[\d\])?)\.{name}"):
                made.doors[door](context, candidates)
        with pytest.raises(FieldValueError):
            made.reference(context, candidates)
    else:
        expected = made.reference(context, candidates)
        for door, score in made.doors.items():
            if door not in WRITTEN or fits_json([context, *candidates]):
                assert np.abs(score(context, candidates) - expected).max() <= TOLERANCE, door


def fits_json(values: Any) -> bool:
    """Whether JSON can say it, and the service reads it as a document: no NaN, no half of a surrogate pair."""

    def leaves(value: Any) -> Iterator[Any]:
        if isinstance(value, (list, dict)):
            for element in [*value, *(value.values() if isinstance(value, dict) else [])]:
                yield from leaves(element)
        else:
            yield value

    for leaf in leaves(values):
        if isinstance(leaf, float) and not math.isfinite(leaf):
            return False
        if isinstance(leaf, int) and abs(leaf) >= 2**1023:  # no number of a document; refused before any field is asked
            return False
        if isinstance(leaf, str) and any("\ud800" <= character <= "\udfff" for character in leaf):
            return False
    return True
