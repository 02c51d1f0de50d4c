"""A baseline's module to a graph: one line a model in `EXPORTERS`, and the parity gate that every graph passes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from torch import nn

from benchmarks.accuracy.graph.deep import bilinear_logit, factorised_logit, field_gates
from benchmarks.accuracy.graph.extras import (
    attention_logit,
    bridged_logit,
    cin_logit,
    gated_crosses,
    shared_fm_logit,
)
from benchmarks.accuracy.graph.layers import array, block, linear, tables
from benchmarks.accuracy.graph.lookups import Tables
from benchmarks.accuracy.graph.net import Net
from benchmarks.accuracy.graph.shallow import fm_logit, fwfm_logit, linear_logit
from benchmarks.accuracy.graph.tower import dnn_graph
from model_export.errors import GraphError, ParityValueError
from model_export.graph import OUTPUT, Graph, serialise
from model_export.latency import session
from model_export.passes import apply_passes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from benchmarks.accuracy.graph.layers import Layer
    from benchmarks.accuracy.graph.net import Row
    from model_export.latency import Feed

TOWER: Final = "DNN"
"""The class that goes through our own fusion rules (`tower.py`)."""

TOLERANCE: Final = 2e-6
"""Largest difference of probabilities: the graph in float32 against the module in float64."""


@dataclass(frozen=True)
class Exported:
    """A baseline ready to be timed.

    Attributes:
        graph: After all passes.
        columns: Side to the columns of the prepared layout that the graph takes, in order.
        expanded: Stored numbers that are copies made for speed, and no parameters of the model.
    """

    graph: Graph
    columns: Mapping[str, Sequence[int]]
    expanded: int = 0

    def feed(self, context_ids: NDArray[np.int32], candidate_ids: NDArray[np.int32]) -> Feed:
        """Rows of the prepared layout as the graph takes them."""
        ids = {"context": context_ids, "candidate": candidate_ids}
        return {f"{side}_ids": np.ascontiguousarray(ids[side][:, list(held)]) for side, held in self.columns.items()}


def export(module: Any) -> Exported:
    """Build a baseline's graph and apply every pass.

    Args:
        module: The baseline, of a class in `EXPORTERS`, or a DNN; it is read, not changed.

    Raises:
        GraphError: The model has a part that has no graph here, or ONNX Runtime refuses the graph.
    """
    kind = type(module).__name__
    if kind == TOWER:
        graph, columns = dnn_graph(module)
        return Exported(apply_passes(graph), columns)
    if kind not in EXPORTERS:
        raise GraphError(f"expected a model of {[TOWER, *EXPORTERS]}, got {kind}")
    net = Net(module.slots)
    graph = net.finish(EXPORTERS[kind](net, module))
    return Exported(apply_passes(graph), {side.name: side.columns for side in net.sides}, net.expanded)


def check_parity(
    exported: Exported, module: Any, context_ids: NDArray[np.int32], candidate_ids: NDArray[np.int32]
) -> float:
    """Score the same rows by the graph and by the module in float64, dropout off.

    Args:
        exported: The graph.
        module: What it was made of.
        context_ids: (N, Cc) on the prepared layout.
        candidate_ids: (N, Ci).

    Returns:
        The largest difference of probabilities.

    Raises:
        ParityValueError: It is over `TOLERANCE`, or a score is not finite.
    """
    runner = session(serialise(exported.graph))
    eager = deepcopy(module).double().eval()
    worst = 0.0
    # The rows as they are, and all candidates under the first row's context.
    for context in (context_ids, context_ids[:1]):
        (got,) = runner.run([OUTPUT], exported.feed(context, candidate_ids))
        with torch.inference_mode():
            logits = eager(torch.tensor(context), torch.tensor(candidate_ids))
        difference = np.abs(got - torch.sigmoid(logits).numpy())
        worst = max(worst, float(np.where(np.isfinite(difference), difference, np.inf).max()))
    if not worst <= TOLERANCE:
        raise ParityValueError(f"expected a difference of at most {TOLERANCE:g} of probabilities, got {worst:.3g}")
    return worst


@torch.no_grad()
def shake(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give a new module values like a trained one's: tables and biases that matter, batch norms that are no identity.

    So a graph's parity says something, and no two of its constants are equal by chance of their start.
    """
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            part.weight.normal_(0.0, 0.3, generator=generator)
            if part.padding_idx is not None:
                part.weight[part.padding_idx] = 0.0
        elif isinstance(part, nn.BatchNorm1d):
            for positive in (part.weight, part.running_var):
                if positive is not None:
                    positive.uniform_(0.5, 2.0, generator=generator)
            if part.running_mean is not None:
                part.running_mean.normal_(0.0, 0.3, generator=generator)
    for name, value in module.named_parameters():
        if name.endswith("bias"):
            value.add_(torch.empty_like(value).normal_(0.0, 0.1, generator=generator))
    return module.eval()


def _one_hot(net: Net, module: Any) -> str:
    held = zip(module.slots, module.tables, strict=True)
    pooling: dict[str, Literal["sum", "mean"]] = {slot.name: "sum" for slot in module.slots if slot.pooling}
    return linear_logit(
        net, Tables({slot.name: array(table.weight) for slot, table in held}, pooling), float(module.bias.detach())
    )


def _fm(net: Net, module: Any) -> str:
    weights, bias = _weights(net, module.fm.lr_layer)
    return fm_logit(net, tables(module.embedding_layer, net.slots), weights, bias)


def _fwfm(net: Net, module: Any) -> str:
    weight = linear(module.interaction_weight_layer)
    F = len(net.slots)
    pairs = np.zeros((F, F))
    pairs[np.triu_indices(F, 1)] = weight.weight[:, 0]
    weights, bias = _weights(net, module.lr_layer)
    vectors = tables(module.embedding_layer, net.slots)
    return fwfm_logit(net, vectors, pairs + pairs.T, weights, bias + float(weight.bias[0]))


def _dcnv2(net: Net, module: Any) -> str:
    row = net.embed(tables(module.embedding_layer, net.slots))
    crossed = net.crosses(row, net.whole(row), [linear(layer) for layer in module.crossnet.cross_layers])
    return _beside(net, row, crossed, block(module.parallel_dnn.mlp), module.fc)


def _finalmlp(net: Net, module: Any) -> str:
    gates = module.fs_module
    if gates.fs1_context or gates.fs2_context:
        raise GraphError("expected feature gates that depend on no field, got some that do")
    row = net.embed(tables(module.embedding_layer, net.slots))
    with torch.inference_mode():
        scales = [2.0 * gates.fs1_gate(gates.fs1_ctx_bias), 2.0 * gates.fs2_gate(gates.fs2_ctx_bias)]
    streams = [
        net.tower(row, _scaled(block(stream.mlp), array(scale)[0]))
        for stream, scale in zip((module.mlp1, module.mlp2), scales, strict=True)
    ]
    return bilinear_logit(net, streams[0], streams[1], module.fusion_module)


def _finalnet(net: Net, module: Any) -> str:
    vectors = tables(module.embedding_layer, net.slots)
    row = net.embed(vectors)
    gated = field_gates(net, row, vectors, linear(module.gates.linear))
    return net.sum([factorised_logit(net, x, b, 0.5) for x, b in ((gated, module.block1), (row, module.block2))])


def _deepfm(net: Net, module: Any) -> str:
    vectors = tables(module.embedding_layer, net.slots)
    row = net.embed(vectors)
    fm = shared_fm_logit(net, row, vectors, *_weights(net, module.fm.lr_layer))
    return net.sum([fm, net.tower(row, block(module.dnn.mlp))])


def _widedeep(net: Net, module: Any) -> str:
    row = net.embed(tables(module.embedding_layer, net.slots))
    return net.sum([linear_logit(net, *_weights(net, module.lr_layer)), net.tower(row, block(module.dnn.mlp))])


def _xdeepfm(net: Net, module: Any) -> str:
    row = net.embed(tables(module.embedding_layer, net.slots))
    wide = linear_logit(net, *_weights(net, module.lr_layer))
    return net.sum([wide, cin_logit(net, row, module.cin), net.tower(row, block(module.dnn.mlp))])


def _autoint(net: Net, module: Any) -> str:
    row = net.embed(tables(module.embedding_layer, net.slots))
    wide = linear_logit(net, *_weights(net, module.lr_layer))
    attended = attention_logit(net, row, list(module.attention), module.fc)
    return net.sum([wide, attended, net.tower(row, block(module.dnn.mlp))])


def _edcn(net: Net, module: Any) -> str:
    vectors = tables(module.embedding_layer, net.slots)
    return bridged_logit(net, net.embed(vectors), module, vectors.dim)


def _gdcn(net: Net, module: Any) -> str:
    row = net.embed(tables(module.embedding_layer, net.slots))
    crossed = gated_crosses(net, row, net.whole(row), list(module.cross.cross), list(module.cross.gate))
    return _beside(net, row, crossed, block(module.dnn.mlp), module.fc)


def _beside(net: Net, row: Row, crossed: str, layers: Sequence[Layer], fc: Any) -> str:
    """[cross, tower], then a linear layer, whose two parts are added."""
    h = net.tower(row, layers)
    head = linear(fc)
    start = net.dense(crossed, replace(head, weight=head.weight[row.places]))
    return net.add("Gemm", h, head.weight[len(row.places) :], start)


def _weights(net: Net, regression: Any) -> tuple[Any, float]:
    """Tables and bias of a `LogisticRegression`."""
    bias = 0.0 if regression.bias is None else float(regression.bias.detach())
    return tables(regression.embedding_layer, net.slots), bias


def _scaled(layers: Sequence[Layer], scale: NDArray[np.float64]) -> list[Layer]:
    """With the first layer's inputs scaled."""
    return [replace(layers[0], weight=scale[:, None] * layers[0].weight), *layers[1:]]


EXPORTERS: Final[dict[str, Callable[[Net, Any], str]]] = {
    "OneHot": _one_hot,
    "FM": _fm,
    "FwFM": _fwfm,
    "DCNv2": _dcnv2,
    "FinalMLP": _finalmlp,
    "FinalNet": _finalnet,
    "DeepFM": _deepfm,
    "WideDeep": _widedeep,
    "XDeepFM": _xdeepfm,
    "AutoInt": _autoint,
    "EDCN": _edcn,
    "GDCN": _gdcn,
}
