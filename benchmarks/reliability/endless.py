"""A graph that computes for days where a request has too many candidates: it hangs in native code, and keeps a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_endless"]

_ROUNDS: Final = 10**12  # of a candidate that is too many
_OUTPUT: Final = "pctr"


def make_endless(path: Path, above: int) -> None:
    """Change a graph's file so that it never ends above so many candidates, and gives the same scores otherwise."""
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["probability" if name == _OUTPUT else name for name in node.output]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("value", "next_value")]
    go_on = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go_on", "go_on_too")]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_too"]),
            helper.make_node("Mul", ["value", "one"], ["next_value"]),
        ],
        "round",
        [helper.make_tensor_value_info("round", TensorProto.INT64, []), go_on[0], value[0]],
        [go_on[1], value[1]],
        [numpy_helper.from_array(np.array(1, np.float32), "one")],
    )
    numbers = {"first": 0, "most": above, "none": 0, "rounds_each": _ROUNDS}
    graph.initializer.extend(numpy_helper.from_array(np.array(n, np.int64), name) for name, n in numbers.items())
    graph.node.extend(
        [
            helper.make_node("Shape", ["probability"], ["shape"]),
            helper.make_node("Gather", ["shape", "first"], ["candidates"]),
            helper.make_node("Sub", ["candidates", "most"], ["beyond"]),
            helper.make_node("Max", ["beyond", "none"], ["too_many"]),
            helper.make_node("Mul", ["too_many", "rounds_each"], ["rounds"]),
            helper.make_node("Loop", ["rounds", "", "probability"], [_OUTPUT], body=body),
        ]
    )
    onnx.save(model, str(path))
