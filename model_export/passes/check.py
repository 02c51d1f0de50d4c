"""The ONNX checker, strict shape inference, and the promises of our own: inputs, output, and nothing unportable."""

from __future__ import annotations

from typing import Final

import onnx

from model_export.errors import GraphError
from model_export.graph import INPUTS, OUTPUT, Graph

DOMAINS: Final = {"", "com.microsoft"}
"""Standard operators, and contrib operators whose kernels every CPU build of ONNX Runtime has."""


def check(graph: Graph) -> Graph:
    """Return the graph as it is.

    Raises:
        GraphError: It is no valid ONNX, its inputs or output are not the contract's, or an operator is of a domain
            (NCHWc, say) that depends on the machine.
    """
    try:
        onnx.checker.check_model(graph.model)
        onnx.shape_inference.infer_shapes(graph.model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"the exported graph is not valid ONNX: {error}") from error
    inputs = [value.name for value in graph.model.graph.input if value.name not in graph.tables]
    outputs = [value.name for value in graph.model.graph.output]
    if inputs != list(INPUTS) or outputs != [OUTPUT]:
        raise GraphError(f"expected inputs {list(INPUTS)} and outputs {[OUTPUT]}, got {inputs} and {outputs}")
    for node in graph.model.graph.node:
        if node.domain not in DOMAINS:
            raise GraphError(
                f"node {node.name}: expected an operator that any CPU runs, got {node.domain}.{node.op_type}"
            )
    return graph
