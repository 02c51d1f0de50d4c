"""ONNX Runtime's own optimiser, run once at export instead of at every start.

Level "extended" holds: it folds constants and fuses a Gemm with its activation (com.microsoft.FusedGemm), which every
CPU build of the runtime has. Level "layout" and above depends on the machine that ran it (NCHWc blocks are as wide as
its vectors), so it stays off.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort

from model_export.errors import GraphError

if TYPE_CHECKING:
    from model_export.graph import Graph


def optimise(graph: Graph) -> Graph:
    """Return the graph as ONNX Runtime would run it on any CPU.

    Raises:
        GraphError: ONNX Runtime cannot load the graph.
    """
    with TemporaryDirectory(prefix="reaction-export-") as directory:
        path = Path(directory) / "optimised.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            ort.InferenceSession(graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions share no class of their own
            raise GraphError(f"ONNX Runtime refuses the exported graph: {error}") from error
        return graph.with_model(onnx.load(path))
