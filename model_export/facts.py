"""What a bundle's manifest says about its model and where it came from, and what a graph may cost at most."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Final

from model_export.errors import GraphError
from model_export.graph import Graph, dense_flops
from training.calibration import IDENTITY
from training.parameters import FLOAT32_BYTES, InferenceParameters

if TYPE_CHECKING:
    from model_export.fusion.tower import FusedTower
    from model_export.load import LoadedRun
    from model_export.parity import ParityReport, Tolerance
    from service.features import FeatureEncoder
    from training.calibration import Calibration
    from training.models.reaction import FusionForm

LIBRARIES: Final = ("onnx", "onnxruntime", "numpy", "torch")

DATASET_FACTS: Final = ("name", "dataset", "seed", "rows", "base_rate", "negative_sampling_rate", "features_digest")
"""What of `dataset.json` goes on: nothing that names a path."""

RUN_FACTS: Final = ("id", "created", "seed", "git_revision", "versions", "init_from")


def tower_flops(form: FusionForm) -> int:
    """Dense FLOPs of one of the form's towers for one row: multiplications and additions of its matrix products."""
    first = sum(slot.dim for slot in form.slots) * form.widths[0]
    return 2 * (first + sum(H * G for H, G in pairwise(form.widths)) + form.widths[-1] + squared_units(form))


def squared_units(form: FusionForm) -> int:
    """How many units the logit reads the squares of: all of the first layer, or none."""
    return form.widths[0] if any(bool(branch.quadratic.any()) for branch in form.parallel) else 0


def calibration_flops(calibration: Calibration, width: int) -> int:
    """Dense FLOPs that calibrating adds for one row, `width` being what its pieces read: last layer and squares."""
    units = len(calibration.slopes)
    return 2 * ((units - 1) * width + units) if calibration.kind == "piecewise" else 0


def check_cost(graph: Graph, form: FusionForm, calibration: Calibration = IDENTITY) -> None:
    """Hold the merged graph to its promise: no more dense FLOPs than one tower, and what calibrates it.

    Raises:
        GraphError: It costs more.
    """
    width = form.widths[-1] + squared_units(form)
    got, most = dense_flops(graph), tower_flops(form) + calibration_flops(calibration, width)
    if got > most:
        raise GraphError(f"expected at most the {most} dense FLOPs a row of one tower, got {got}")


def graph_parameters(graph: Graph) -> InferenceParameters:
    """Count what a graph stores, in whatever precision; scales of a table and bounds of a Clip are no parameters."""
    bounds = {name for node in graph.model.graph.node if node.op_type == "Clip" for name in node.input[1:]}
    constants = [one for one in graph.model.graph.initializer if one.data_type == one.FLOAT and one.name not in bounds]
    dense = sum(prod(constant.dims) for constant in constants)
    embedding = sum(table.size for table in graph.tables.values() if table.ndim > 1)
    return InferenceParameters(embedding, dense, graph.table_bytes + FLOAT32_BYTES * dense)


def training_facts(loaded: LoadedRun) -> dict[str, Any]:
    """`training` of the manifest: the run, its data and its metrics."""
    record = loaded.run.record
    return {
        "run": {key: record[key] for key in RUN_FACTS if key in record},
        "dataset": {key: loaded.run.data_info[key] for key in DATASET_FACTS if key in loaded.run.data_info},
        "metrics": dict(loaded.run.metrics),
    }


def model_facts(
    loaded: LoadedRun,
    *,
    tower: FusedTower,
    graph: Graph,
    encoder: FeatureEncoder,
    parity: ParityReport,
    tolerance: Tolerance,
) -> dict[str, Any]:
    """`model` of the manifest: what the graph is, and how close it came to the fusion form."""
    stored = graph_parameters(graph)
    return {
        "parameters": stored.total,
        "embedding_parameters": stored.embedding,
        "dense_parameters": stored.dense,
        "parameter_bytes": stored.bytes,
        "flops": dense_flops(graph),
        "tower_flops": tower_flops(loaded.form),
        "widths": list(loaded.form.widths),
        "folded_fields": [field.name for field in tower.fields if field.folded],
        "padded_fields": {
            choice.name: choice.served_dim
            for choice in tower.folding
            if not choice.folded and choice.served_dim > choice.dim
        },
        "folding": None if tower.trade is None else asdict(tower.trade),
        "dropped_fields": [field.name for field in encoder.ignored],
        "training_only_fields": [field.name for field in encoder.refused],
        "negative_sampling_rate": loaded.negative_sampling_rate,
        "calibration": asdict(loaded.calibration),
        "tolerance": tolerance.pctr,
        "parity": asdict(parity),
        "exported_with": {name: version(name) for name in LIBRARIES},
    }
