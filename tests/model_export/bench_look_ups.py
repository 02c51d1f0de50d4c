"""One look-up in every form of a table: what the passes write, and what they were chosen over.

float16 and int8 are what `TABLE_PASSES` make. "int8, Mul" is Gather, Cast and a product with the row's scale; "int8,
block" is com.microsoft.GatherBlockQuantized with one block a row. All are timed in turns on the same ids.
"""

# ruff: noqa: T201 - a bench prints
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from model_export.fusion.layout import arrange
from model_export.fusion.tower import Dense, FusedField, FusedTower
from model_export.graph import INPUTS, Graph, serialise
from model_export.latency import interleaved_medians, session
from model_export.passes import TABLE_PASSES, apply_passes, apply_table_pass
from model_export.passes.int8 import quantise
from model_export.to_onnx import to_onnx

FIELDS = 13
WIDTH = 64
ROWS = (1, 100, 1000)
SMALLEST_BLOCK = 16


def tower(rows: int, dim: int, *, folded: bool) -> FusedTower:
    """Candidate fields of one column each; folded, their rows are as wide as the layer and are summed."""
    generator = np.random.default_rng(0)
    columns = WIDTH if folded else dim
    fields = tuple(
        FusedField(
            name=f"field_{number}",
            side="candidate",
            first=number,
            width=1,
            table=generator.standard_normal((max(rows // FIELDS, 1), columns), np.float32),
            projection=None if folded else generator.standard_normal((dim, WIDTH)),
        )
        for number in range(FIELDS)
    )
    return arrange(FusedTower(fields, np.zeros(WIDTH), (), Dense(generator.standard_normal((WIDTH, 1)), np.zeros(1))))


def alternative(graph: Graph, kind: str) -> bytes:
    """The graph with its one look-up done otherwise."""
    ((name, table),) = graph.tables.items()
    values, scales = quantise(table)
    model = ModelProto()
    model.CopyFrom(graph.model)
    at, gather = next((at, node) for at, node in enumerate(model.graph.node) if node.input[0] == name)
    ids, output = gather.input[1], gather.output[0]
    if kind == "int8, Mul":
        made = [
            helper.make_node("Gather", ["values", ids], ["rows"]),
            helper.make_node("Cast", ["rows"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Gather", ["scales", ids], ["factors"]),
            helper.make_node("Mul", ["floats", "factors"], [output]),
        ]
        stored = values
    else:
        block = max(SMALLEST_BLOCK, 1 << (table.shape[1] - 1).bit_length())
        made = [
            helper.make_node(
                "GatherBlockQuantized",
                ["values", ids, "scales"],
                [output],
                domain="com.microsoft",
                gather_axis=0,
                quantize_axis=1,
                block_size=block,
                bits=8,
            )
        ]
        stored = (values.astype(np.int16) + 128).astype(np.uint8)
        if not any(opset.domain == "com.microsoft" for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    nodes = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*nodes[:at], *made, *nodes[at + 1 :]])
    model.graph.input.extend(value for value in graph.model.graph.input if value.name in INPUTS)
    model.graph.initializer.append(numpy_helper.from_array(stored, "values"))
    model.graph.initializer.append(numpy_helper.from_array(scales[:, None], "scales"))
    return model.SerializeToString()


def measure(rows: int, dim: int, *, folded: bool, seconds: float) -> dict[str, dict[int, float]]:
    """Form to number of candidates to the median of a call in microseconds."""
    graph = apply_passes(to_onnx(tower(rows, dim, folded=folded)))
    models = {"float32": serialise(graph)}
    models |= {precision: serialise(apply_table_pass(graph, precision)) for precision in TABLE_PASSES}
    models |= {kind: alternative(graph, kind) for kind in ("int8, Mul", "int8, block")}
    runners = {name: session(model) for name, model in models.items()}
    generator = np.random.default_rng(1)
    found: dict[str, dict[int, float]] = {name: {} for name in runners}
    scores = {}
    for count in ROWS:
        feeds = [
            {
                "context_ids": np.zeros((1, 0), np.int32),
                "candidate_ids": generator.integers(0, max(rows // FIELDS, 1), (count, FIELDS), np.int32),
            }
            for _ in range(64)
        ]
        scores = {name: runner.run(None, feeds[0])[0] for name, runner in runners.items()}
        turns = {name: (runner, feeds) for name, runner in runners.items()}
        for name, microseconds in interleaved_medians(turns, seconds=seconds).items():
            found[name][count] = microseconds
    for kind in ("int8, Mul", "int8, block"):
        np.testing.assert_allclose(scores[kind], scores["int8"], rtol=0, atol=1e-5)
    return found


def show(rows: int, *, seconds: float = 2.0) -> dict[str, Any]:
    """Print and give back the times of summed and of multiplied look-ups."""
    cases = {f"{FIELDS} rows of {WIDTH}, summed": (WIDTH, True), f"{FIELDS} rows of 16, multiplied": (16, False)}
    found = {}
    for case, (dim, folded) in cases.items():
        found[case] = measure(rows, dim, folded=folded, seconds=seconds)
        print(f"{case}, tables of {rows:,} rows in all: µs a call, and against float32")
        for name, times in found[case].items():
            ratios = (f"{us:9.1f} {us / found[case]['float32'][count]:5.2f}x" for count, us in times.items())
            print(f"  {name:<12}" + "".join(ratios), flush=True)
    return found
