"""What a baseline's graph stores and computes, counted as ours is; of our own, the bundle's manifest has it counted.

A parameter is a stored floating point number (`model_export.facts.graph_parameters`): of a table as it is stored, or of
anything else. Ids, offsets, shapes and axes are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import ModelProto

from model_export.errors import GraphError
from model_export.facts import graph_parameters
from training.parameters import FLOAT32_BYTES, InferenceParameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import NodeProto

    from benchmarks.accuracy.graph.exporters import Exported

PRODUCTS: Final = {"Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


def exported_parameters(exported: Exported) -> InferenceParameters:
    """What a baseline's graph stores, without copies that were made for speed."""
    found = graph_parameters(exported.graph)
    copies = exported.expanded
    return InferenceParameters(found.embedding, found.dense - copies, found.bytes - FLOAT32_BYTES * copies)


def bundle_parameters(manifest_model: Mapping[str, Any]) -> InferenceParameters:
    """What a bundle stores, from the `model` of its manifest."""
    keys = ("embedding_parameters", "dense_parameters", "parameter_bytes")
    return InferenceParameters(*(int(manifest_model[key]) for key in keys))


def facts(parameters: InferenceParameters) -> dict[str, int]:
    """As the ledger and the tables call them."""
    return {
        "inference": parameters.total,
        "embedding": parameters.embedding,
        "dense": parameters.dense,
        "bytes": parameters.bytes,
    }


def flops(model: ModelProto, rows: int) -> int:
    """Multiplications and additions of all matrix products in one call with one context row and `rows` candidates.

    Raises:
        GraphError: The shape of a product cannot be inferred.
    """
    shapes = _shapes(_standard(model), rows)
    total = 0
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            try:
                result, left = shapes[node.output[0]], shapes[node.input[0]]
            except KeyError as error:
                raise GraphError(f"node {node.name}: the shape of {error} cannot be inferred") from None
            # The sum runs over A's columns, or over its rows where A is read transposed.
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            total += 2 * int(np.prod(result)) * left[-2 if transposed else -1]
    return total


def _standard(model: ModelProto) -> ModelProto:
    """The graph with fused products as plain ones, of which ONNX knows the shapes."""
    plain = ModelProto()
    plain.CopyFrom(model)
    for node in plain.graph.node:
        if node.op_type in {"FusedGemm", "FusedMatMul"}:
            _plain(node)
    return plain


def _plain(node: NodeProto) -> None:
    node.op_type = node.op_type.removeprefix("Fused")
    node.ClearField("domain")
    known = [attribute for attribute in node.attribute if attribute.name in {"alpha", "beta", "transA", "transB"}]
    if node.op_type == "MatMul":
        if any(attribute.i for attribute in known if attribute.name.startswith("trans")):
            raise GraphError(f"node {node.name}: expected a product of matrices as they lie, got a transposed one")
        known = []
    kept = [type(attribute).FromString(attribute.SerializeToString()) for attribute in known]
    del node.attribute[:]
    node.attribute.extend(kept)


def _shapes(model: ModelProto, rows: int) -> dict[str, tuple[int, ...]]:
    sizes = {"context_rows": 1, "rows": rows}
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = tuple(dim.dim_value for dim in dims)
    return known
