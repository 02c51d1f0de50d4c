"""Puts a graph into one canonical form: same model, same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import ModelProto, TensorProto

if TYPE_CHECKING:
    from model_export.graph import Graph


def clean(graph: Graph) -> Graph:
    """Return the graph with equal constants shared, unused ones and unused imports gone, and everything in one order.

    Nodes stay in their (topological) order and are named by it; who made the file, and when, is left out.
    """
    model = ModelProto()
    model.CopyFrom(graph.model)
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    kept: dict[str, TensorProto] = {}
    for constant in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        nameless = TensorProto()
        nameless.CopyFrom(constant)
        nameless.ClearField("name")
        name = first.setdefault(nameless.SerializeToString(deterministic=True), constant.name)
        same[constant.name] = name
        kept[name] = kept.get(name, constant)
    used = set()
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        inputs = [same.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        used.update(inputs)
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        del node.attribute[:]
        node.attribute.extend(attributes)
    constants = [constant for name, constant in kept.items() if name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    del model.graph.value_info[:]
    domains = {node.domain for node in model.graph.node} | {""}
    imports = {opset.domain: opset for opset in model.opset_import if opset.domain in domains}
    del model.opset_import[:]
    model.opset_import.extend(imports[domain] for domain in sorted(imports))
    for stamp in ("producer_name", "producer_version", "doc_string", "metadata_props"):
        model.ClearField(stamp)
    model.producer_name = "reaction"
    return graph.with_model(model)
