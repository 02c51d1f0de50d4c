"""Scorer: every form of a request against scores worked out by hand, and graphs that are not what they should be."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from serving import ROW_CANDIDATES, ROW_CONTEXT, HandModel, build_bundle

from service.bundle import Bundle, BundleFormatError, read_bundle
from service.features import (
    FieldValueError,
    MisplacedFieldError,
    NoCandidatesError,
    RaggedColumnsError,
    RequestError,
    StructureError,
    UnknownFieldError,
)
from service.scorer import Scorer, ScorerError, SelfTestError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return Scorer(read_bundle(bundle))


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}


words = st.none() | st.sampled_from(["u1", "u2", "7", "a1", "é", "x", ""]) | st.text(max_size=4) | st.integers(-9, 9)
floats = st.none() | st.floats(-1e9, 1e9) | st.integers(-20, 20) | st.sampled_from(["2.5", "", "1e1"])
tags = st.none() | st.lists(st.sampled_from(["x", "y", "new", ""]), max_size=5) | st.sampled_from(["x|y", "y", "|x"])
contexts = st.fixed_dictionaries({}, optional={"user": words, "hour": floats, "site": st.floats() | words})
candidates = st.fixed_dictionaries({}, optional={"ad": words, "price": floats, "tags": tags, "colour": words})


class TestForms:
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(context=contexts, rows=st.lists(candidates, min_size=1, max_size=6))
    def test_rows_columns_and_pointwise_give_the_scores_worked_out_by_hand(
        self, scorer: Scorer, hand_model: HandModel, context: dict[str, Any], rows: list[dict[str, Any]]
    ) -> None:
        expected = [hand_model.score(context, row) for row in rows]
        both = [{**context, **row} for row in rows]
        forms = {"rows": (context, rows), "pointwise rows": (None, both), "empty context": ({}, both)}
        if columns_of(rows):
            forms["columns"] = (context, columns_of(rows))
        if columns_of(both):
            forms["pointwise columns"] = (None, columns_of(both))
        for form, request in forms.items():
            scores = scorer.score(*request)
            assert scores.dtype == np.float32, form
            assert scores.shape == (len(rows),), form
            assert np.abs(scores - expected).max() < 1e-6, form

    def test_the_context_is_encoded_once_and_per_row_only_in_the_pointwise_form(self, scorer: Scorer) -> None:
        shapes = [ids.shape for ids in scorer.encode(ROW_CONTEXT, ROW_CANDIDATES)]
        assert shapes == [(1, 2), (3, 5)]
        shapes = [ids.shape for ids in scorer.encode(None, ROW_CANDIDATES)]
        assert shapes == [(3, 2), (3, 5)]

    def test_one_candidate_keeps_its_axis(self, scorer: Scorer) -> None:
        assert scorer.score(ROW_CONTEXT, ROW_CANDIDATES[:1]).shape == (1,)
        assert scorer.score(ROW_CONTEXT, {"ad": ["a1"]}).shape == (1,)
        assert scorer.score(None, [{}]).shape == (1,)

    def test_fields_that_retraining_dropped_may_be_sent_on_their_own_side(self, scorer: Scorer) -> None:
        plain = scorer.score(ROW_CONTEXT, ROW_CANDIDATES)
        sent = scorer.score({**ROW_CONTEXT, "site": ["any"]}, [{**row, "colour": 1.5} for row in ROW_CANDIDATES])
        assert (plain == sent).all()

    def test_many_threads_may_score_at_once(self, scorer: Scorer, hand_model: HandModel) -> None:
        requests = [({"user": f"u{number % 3}"}, [{"ad": f"a{number % 4}"}] * (number + 1)) for number in range(40)]
        with ThreadPoolExecutor(8) as pool:
            for (context, rows), scores in zip(
                requests, pool.map(lambda request: scorer.score(*request), requests), strict=True
            ):
                assert np.abs(scores - hand_model.score(context, rows[0])).max() < 1e-6


@pytest.mark.parametrize(
    ("context", "candidates", "error", "message"),
    [
        ({}, [], NoCandidatesError, "candidates: expected at least one, got none"),
        ({}, {}, NoCandidatesError, "candidates: expected at least one, got none"),
        ({}, {"ad": []}, NoCandidatesError, "candidates: expected at least one, got none"),
        ({}, {"ad": [], "price": [1]}, NoCandidatesError, "candidates: expected at least one, got none"),
        ({}, None, StructureError, "candidates: expected an array of objects or an object of arrays, got null"),
        ({}, "", StructureError, "candidates: expected an array of objects or an object of arrays, got the text ''"),
        ({}, 3, StructureError, "candidates: expected an array of objects or an object of arrays, got the integer 3"),
        ([], [{}], StructureError, "context: expected an object, got an array of 0 elements"),
        ("u", [{}], StructureError, "context: expected an object, got the text 'u'"),
        ({}, [{}, None], StructureError, "candidates[1]: expected an object, got null"),
        ({}, {"ad": "ab"}, StructureError, "candidates.ad: expected an array, got the text 'ab'"),
        ({}, {"ad": ["a"], "price": 1}, StructureError, "candidates.price: expected an array, got the integer 1"),
        ({}, {"ad": ["a"], "price": [1, 2]}, RaggedColumnsError, "candidates.price: expected 1 values, got 2"),
        ({}, {"ad": ["a"], "user": ["u", "v"]}, RaggedColumnsError, "candidates.user: expected 1 values, got 2"),
        (
            {"user": "u"},
            [{}, {"hour": 3}],
            MisplacedFieldError,
            "candidates[1].hour: expected a field of the candidate side, got one of the context side",
        ),
        (
            {"user": "u"},
            {"ad": ["a"], "hour": [3]},
            MisplacedFieldError,
            "candidates.hour: expected a field of the candidate side, got one of the context side",
        ),
        (
            {"site": "dropped, and yet a context"},
            [{"user": "u"}],
            MisplacedFieldError,
            "candidates[0].user: expected a field of the candidate side, got one of the context side",
        ),
        (
            {"ad": "a"},
            [{}],
            MisplacedFieldError,
            "context.ad: expected a field of the context side, got one of the candidate side",
        ),
        (
            {"user": "u", "usr": "u"},
            [{}],
            UnknownFieldError,
            "context.usr: expected a field of the schema, the nearest is the text 'user', got an unknown field",
        ),
        (
            {},
            [{"user": "u"}, {"usr": "u"}],
            UnknownFieldError,
            "candidates[1].usr: expected a field of the schema, the nearest is the text 'user', got an unknown field",
        ),
        (
            {},
            [{"position": 1}],
            UnknownFieldError,
            "candidates[0].position: expected nothing: the field exists in training only, got a value",
        ),
        ({"user": 1.5}, [{}], FieldValueError, "context.user: expected text or an integer, got the float 1.5"),
        (
            {"hour": float("nan")},
            [{}],
            FieldValueError,
            "context.hour: expected a finite number in the float64 range, got the float nan",
        ),
        ({}, [{"user": {}}], FieldValueError, "candidates[0].user: expected text or an integer, got an object"),
        (
            {},
            {"hour": [1, "noon"]},
            FieldValueError,
            "candidates.hour[1]: expected a number or numeric text, got the text 'noon'",
        ),
        (
            {"user": "u"},
            [{"tags": ["x", None]}],
            FieldValueError,
            "candidates[0].tags[1]: expected text or an integer, got null",
        ),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_scored_says_where(
    scorer: Scorer, context: Any, candidates: Any, error: type[RequestError], message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        scorer.score(context, candidates)
    assert type(caught.value) is error
    assert str(caught.value) == message


def test_onnx_runtime_gets_the_threads_it_is_given_and_does_not_spin(bundle: Path) -> None:
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        Scorer(read_bundle(bundle), threads=0)
    for threads in (1, 2):
        options = Scorer(read_bundle(bundle), threads=threads)._session.get_session_options()
        assert options.intra_op_num_threads == threads
        assert options.inter_op_num_threads == 1
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


class TestSelfTest:
    def test_golden_rows_are_scored(self, scorer: Scorer) -> None:
        report = scorer.self_test()
        assert report.rows == 9
        assert 0 <= report.largest_difference < report.tolerance == 1e-6

    def test_a_wrong_id_is_named_by_row_and_field(self, bundle: Path) -> None:
        read = read_bundle(bundle)
        row = read.golden[4]
        wrong = msgspec.structs.replace(row, candidate_ids=[*row.candidate_ids[:3], 9, 2])
        spoilt = replace(read, golden=(*read.golden[:4], wrong, *read.golden[5:]))
        with pytest.raises(SelfTestError, match=r"golden row 4, field 'tags': expected id 9, got 1"):
            Scorer(spoilt).self_test()

    def test_a_wrong_score_is_named_by_row(self, bundle: Path) -> None:
        read = read_bundle(bundle)
        wrong = msgspec.structs.replace(read.golden[7], pctr=read.golden[7].pctr + 2e-6)
        spoilt = replace(read, golden=(*read.golden[:7], wrong, *read.golden[8:]))
        with pytest.raises(
            SelfTestError, match=r"golden row 7, pointwise: expected score 0\.\d+ within 1e-06, got 0\.\d+$"
        ):
            Scorer(spoilt).self_test()

    def test_scores_that_are_all_off_are_refused(self, tmp_path: Path) -> None:
        build_bundle(tmp_path / "off", golden_offset=1e-3)
        with pytest.raises(SelfTestError, match="expected score"):
            Scorer(read_bundle(tmp_path / "off")).self_test()


def value(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


CONTEXT, CANDIDATE = ["M", 2], ["N", 5]


def graph_of(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.float32("nan"), "nan"),
    ]
    graph = helper.make_graph(nodes, "made by hand", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def summing(kind: int = TensorProto.FLOAT, *, tail: list[onnx.NodeProto] | None = None) -> list[onnx.NodeProto]:
    """Sums both sides' ids to one number a candidate, called `sum`, then the tail."""
    return [
        helper.make_node("Cast", ["context_ids"], ["a"], to=kind),
        helper.make_node("Cast", ["candidate_ids"], ["b"], to=kind),
        helper.make_node("ReduceSum", ["a", "axis"], ["c"], keepdims=0),
        helper.make_node("ReduceSum", ["b", "axis"], ["d"], keepdims=0),
        helper.make_node("Add", ["c", "d"], ["sum"]),
        *([helper.make_node("Sigmoid", ["sum"], ["pctr"])] if tail is None else tail),
    ]


INT32, FLOAT = TensorProto.INT32, TensorProto.FLOAT
INPUTS = [value("context_ids", INT32, CONTEXT), value("candidate_ids", INT32, CANDIDATE)]
PCTR = [value("pctr", FLOAT, ["N"])]


@pytest.fixture
def with_graph(bundle: Path, tmp_path: Path) -> Callable[[onnx.ModelProto], Bundle]:
    def build(model: onnx.ModelProto) -> Bundle:
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return replace(read_bundle(bundle), model_path=path)

    return build


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (
            [value("context_ids", INT32, ["M", 3]), INPUTS[1]],
            PCTR,
            r"context_ids: expected tensor\(int32\) of shape \(rows, 2\), got tensor\(int32\) \['M', 3\]",
        ),
        ([INPUTS[0], value("candidate_ids", INT32, ["N", "C"])], PCTR, "candidate_ids: expected"),
        ([INPUTS[0], value("candidate_ids", TensorProto.INT64, CANDIDATE)], PCTR, r"got tensor\(int64\)"),
        ([*INPUTS, value("user", INT32, ["N"])], PCTR, r"expected inputs \['candidate_ids', 'context_ids'\], got"),
        (INPUTS, [*PCTR, value("sum", FLOAT, ["N"])], "expected the output 'pctr'"),
        (INPUTS, [value("sum", FLOAT, ["N"])], "expected the output 'pctr'"),
    ],
)  # fmt: skip
def test_a_graph_with_other_inputs_or_outputs_is_refused(
    with_graph: Callable[[onnx.ModelProto], Bundle], inputs: Any, outputs: Any, message: str
) -> None:
    with pytest.raises(BundleFormatError, match=message):
        Scorer(with_graph(graph_of(summing(), inputs, outputs)))


def test_a_file_that_is_no_graph_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(
        BundleFormatError, match=f"^{tmp_path / 'model.onnx'}: expected a graph that ONNX Runtime can load"
    ):
        Scorer(replace(read_bundle(bundle), model_path=tmp_path / "model.onnx"))


def test_a_graph_that_answers_in_another_shape_is_noticed(with_graph: Callable[[onnx.ModelProto], Bundle]) -> None:
    tail = [helper.make_node("Sigmoid", ["sum"], ["p"]), helper.make_node("Unsqueeze", ["p", "axis"], ["pctr"])]
    scorer = Scorer(with_graph(graph_of(summing(tail=tail), INPUTS, [value("pctr", FLOAT, None)])))  # type: ignore[arg-type]
    with pytest.raises(ScorerError, match=r"pctr: expected shape \(3,\), got \(3, 1\)"):
        scorer.score(ROW_CONTEXT, ROW_CANDIDATES)


def test_a_graph_that_gives_no_number_fails_the_self_test(with_graph: Callable[[onnx.ModelProto], Bundle]) -> None:
    tail = [helper.make_node("Mul", ["sum", "nan"], ["pctr"])]
    with pytest.raises(SelfTestError, match=r"golden row 0, pointwise: expected score .*, got nan"):
        Scorer(with_graph(graph_of(summing(tail=tail), INPUTS, PCTR))).self_test()


@pytest.mark.parametrize("location", ["../outside.data", "{outside}", "link.data"])
def test_weights_outside_the_bundle_are_not_read(bundle: Path, tmp_path: Path, location: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.data"
    inside.mkdir()
    outside.write_bytes(np.ones(1, np.float32).tobytes())
    (inside / "link.data").symlink_to(outside)
    tail = [helper.make_node("Mul", ["sum", "weight"], ["logit"]), helper.make_node("Sigmoid", ["logit"], ["pctr"])]
    model = graph_of(summing(tail=tail), INPUTS, PCTR)
    weight = model.graph.initializer.add(name="weight", data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location.format(outside=outside))
    (inside / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleFormatError, match="External data path"):
        Scorer(replace(read_bundle(bundle), model_path=inside / "model.onnx"))


def test_scoring_loads_neither_a_web_framework_nor_a_training_library() -> None:
    code = "import sys, service.scorer, service.bundle; print(*{name.partition('.')[0] for name in sys.modules})"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(outcome.stdout.split())
    assert "onnxruntime" in loaded
    unwanted = {"fastapi", "starlette", "uvicorn", "pydantic", "torch", "onnx", "polars", "sklearn", "scipy", "pandas"}
    assert not loaded & unwanted
