"""An ONNX graph whose tables are kept beside it, so that no pass ever serialises or copies them.

protobuf cannot hold more than 2 GB, and a pass that goes through a runtime would write every table once more. So
tables are graph inputs while passes run; `save` turns them into initialisers, in the file or beside it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from model_export.errors import NoRoomError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INPUTS: Final = ("context_ids", "candidate_ids")
OUTPUT: Final = "pctr"

# Opset 17 and IR 8 are read by every ONNX Runtime since 1.12; nothing newer is needed.
OPSET: Final = 17
IR_VERSION: Final = 8

EXTERNAL_ABOVE_BYTES: Final = 64 << 20
"""Tables of more than this in total are written beside the model: they are memory-mapped and shared by workers."""

# Each table starts on a page of its own, as mapping needs; 64 KiB also satisfies Windows.
ALIGNMENT: Final = 1 << 16

SPARE: Final = 0.05
GIB: Final = 1 << 30

Array: TypeAlias = NDArray[Any]
"""A table: float32 as built, or what a pass stores instead."""


@dataclass(frozen=True)
class Graph:
    """A model without its tables.

    Attributes:
        model: Every table is declared as a graph input under its name.
        tables: Name to (rows, columns), or to (rows,) of scales.
    """

    model: ModelProto
    tables: Mapping[str, Array]

    def with_model(self, model: ModelProto) -> Graph:
        """Return the graph with another model around the same tables."""
        return replace(self, model=model)

    def with_tables(self) -> ModelProto:
        """Return the model with its tables inside (2 GB at most)."""
        return _with_tables(self, _inline(self.tables))

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables."""
        return sum(table.nbytes for table in self.tables.values())


def dense_flops(graph: Graph) -> int:
    """Multiplications and additions of all products with a constant matrix, for one row."""
    shapes = {constant.name: tuple(constant.dims) for constant in graph.model.graph.initializer}
    total = 0
    for node in graph.model.graph.node:
        if node.op_type in {"Gemm", "FusedGemm", "MatMul", "FusedMatMul"}:
            total += 2 * int(np.prod(shapes[node.input[1]]))
    return total


def save(graph: Graph, path: Path, external_above: int = EXTERNAL_ABOVE_BYTES) -> None:
    """Write the model with its tables.

    Args:
        graph: What to write.
        path: The .onnx file; external tables go to the same name with `.data` added.
        external_above: Bytes of tables beyond which they are external.
    """
    if graph.table_bytes > external_above:
        data = path.with_name(path.name + ".data")
        model = _with_tables(graph, _write_external(graph.tables, data))
    else:
        model = _with_tables(graph, _inline(graph.tables))
    path.write_bytes(model.SerializeToString(deterministic=True))
    # By path: a model past 2 GB cannot be checked in memory.
    onnx.checker.check_model(str(path), full_check=True)


@contextmanager
def written(graphs: Mapping[str, Graph]) -> Iterator[dict[str, Path]]:
    """Write graphs as a bundle has them, large tables beside, into a directory that goes at the end.

    Yields:
        Name to the .onnx file.

    Raises:
        NoRoomError: The directory for temporary files has too little room for them.
    """
    with TemporaryDirectory(prefix="reaction-export-") as name:
        directory = Path(name)
        needed, free = sum(graph.table_bytes for graph in graphs.values()), disk_usage(directory).free
        if free < needed * (1.0 + SPARE):
            raise NoRoomError(
                f"{directory.parent}: expected room for {needed / GIB:.1f} GiB of tables, got {free / GIB:.1f} GiB free"
            )
        paths = {key: directory / f"{number}.onnx" for number, key in enumerate(graphs)}
        for key, path in paths.items():
            save(graphs[key], path)
        yield paths


def serialise(graph: Graph) -> bytes:
    """Return the model with its tables inside (2 GB at most), for runs that need no file."""
    content: bytes = graph.with_tables().SerializeToString(deterministic=True)
    return content


def _with_tables(graph: Graph, tables: list[TensorProto]) -> ModelProto:
    """The model with these tables as initialisers and no longer as inputs."""
    model = ModelProto()
    model.CopyFrom(graph.model)
    inputs = [value for value in model.graph.input if value.name not in graph.tables]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(tables)
    return model


def _inline(tables: Mapping[str, Array]) -> list[TensorProto]:
    return [numpy_helper.from_array(table, name) for name, table in tables.items()]


def _write_external(tables: Mapping[str, Array], path: Path) -> list[TensorProto]:
    tensors = []
    with path.open("wb") as file:
        for name, table in tables.items():
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(table.dtype), dims=table.shape)
            tensor.data_location = TensorProto.EXTERNAL
            facts = {"location": path.name, "offset": file.tell(), "length": table.nbytes}
            for key, value in facts.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write(np.ascontiguousarray(table).astype(table.dtype.newbyteorder("<"), copy=False).data)
            tensors.append(tensor)
    return tensors
