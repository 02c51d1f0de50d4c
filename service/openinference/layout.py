"""The tensors of a request by name: their shapes, their datatypes, and where in the body their data is.

Names, then shapes and datatypes, then places; no value is looked at. Shapes, with N candidates: a candidate field is
[N] or [N, 1]. A context field is [1] or [1, 1], and then it is encoded and projected once, or it is [N] or [N, 1] as
well, which is the pointwise form. A multi-valued field takes a text with separators as [N], and its elements one by one
as [N, K], empty ones skipped. A field without a tensor is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from service.errors import MemberError
from service.features.errors import (
    NoCandidatesError,
    RaggedColumnsError,
    StructureError,
    UnknownFieldError,
    describe,
)
from service.openinference.tensors import DATATYPES, Datatype, Tensor, flat_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.features import FeatureEncoder, Field
    from service.openinference.document import InputTensor

__all__ = ["Layout", "accepted_datatypes"]

_ACCEPTED: Final[dict[str, frozenset[str]]] = {
    "categorical": frozenset({"text", "integer"}),
    "numeric": frozenset({"text", "integer", "real"}),
    "multi_valued": frozenset({"text", "integer"}),
}
_MATRIX: Final = 2


def accepted_datatypes(kind: str) -> list[str]:
    """Datatypes that a field of a kind takes."""
    return [name for name, datatype in DATATYPES.items() if datatype.family in _ACCEPTED[kind]]


class Layout:
    """What tensors a model's requests may carry.

    Args:
        encoder: The model's serving encoder.
        max_candidates: Most candidates in one request.
    """

    def __init__(self, encoder: FeatureEncoder, *, max_candidates: int) -> None:
        self._encoder = encoder
        self._max_candidates = max_candidates
        fields = (*encoder.fields, *encoder.ignored)
        self._ignored = frozenset(field.name for field in encoder.ignored)
        self._shared = frozenset(field.name for field in fields if field.side == "context")
        self._places = {
            field.name: (field, {name: DATATYPES[name] for name in accepted_datatypes(field.kind)}) for field in fields
        }

    def tensors(self, inputs: Iterable[InputTensor], body: bytes, header_length: int | None) -> dict[str, Tensor]:
        """The tensors of a request by name, in its order.

        Args:
            inputs: As they came in.
            body: The whole body.
            header_length: Bytes of its JSON part; None where that is the whole body.

        Raises:
            RequestError: A name that is no field or there twice, a shape or datatype that the field does not have, data
                of another length, or binary data that the body does not have.
        """
        end = len(body)
        offset = end if header_length is None else header_length
        places = self._places
        tensors: dict[str, Tensor] = {}
        for given in inputs:
            name = given.name
            place = places.get(name)
            if place is None:
                self._refuse_name(name)
            if name in tensors:
                raise StructureError(f"inputs.{name}", "one tensor of the name", "two")
            field, datatypes = place
            rows, width, listed = _shape(given, field)
            datatype = datatypes.get(given.datatype) or self._other_datatype(given, field)
            parameters, data = given.parameters, given.data
            size = _binary_size(name, parameters, binary=header_length is not None) if parameters else None
            if size is None:
                if type(data) is not list:
                    raise StructureError(f"inputs.{name}", "data, or binary data of a stated size", "neither")
                if width != 1 or len(data) != rows or type(data[0]) is list:
                    data = flat_data(name, data, rows, width)
                tensors[name] = Tensor(name, datatype, rows, width, listed, data)
                continue
            if type(data) is list:
                raise StructureError(f"inputs.{name}", "data, or binary data of a stated size", "both")
            if size > end - offset:
                raise StructureError(
                    f"inputs.{name}.parameters.binary_data_size",
                    f"at most the {end - offset} bytes that are left of the body",
                    f"{size}",
                )
            tensors[name] = Tensor(name, datatype, rows, width, listed, None, body, offset, size)
            offset += size
        if offset != end:
            raise StructureError("body", f"{offset} bytes, as its JSON and the sizes of its tensors say", f"{end}")
        return tensors

    def rows(self, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """Rows of the two id matrices: 1 or N of context, N candidates.

        Raises:
            RequestError: Tensors that differ in length, none, or too many candidates.
        """
        if not tensors:
            raise NoCandidatesError("inputs", "at least one tensor", "none")
        shared = self._shared
        contexts = {tensor.rows for name, tensor in tensors.items() if name in shared}
        candidates = {tensor.rows for name, tensor in tensors.items() if name not in shared}
        # Without any candidate field there are as many candidates as rows of context.
        most = max(contexts, default=1)
        count = next(iter(candidates)) if len(candidates) == 1 else 0 if candidates else most
        if not count or not contexts <= {1, count}:
            self._refuse_rows(tensors, most)
        if count > self._max_candidates:
            raise MemberError("inputs", f"at most {self._max_candidates} candidates", f"{count}")
        return most, count

    def _refuse_rows(self, tensors: Mapping[str, Tensor], most: int) -> NoReturn:
        """Say which tensor is of another length than the first candidate field's, or than the context's longest."""
        shared = self._shared
        count = next((tensor.rows for name, tensor in tensors.items() if name not in shared), most)
        for name, tensor in tensors.items():
            if tensor.rows != count and not (name in shared and tensor.rows == 1):
                expected = f"{'1 row or ' if name in shared else ''}{count} rows, as there are candidates"
                raise RaggedColumnsError(f"inputs.{name}.shape", expected, f"{tensor.rows}")
        raise RaggedColumnsError("inputs", "tensors of one length", "others")

    def _other_datatype(self, given: InputTensor, field: Field) -> Datatype:
        if field.name in self._ignored:
            return DATATYPES["BYTES"]  # whatever it is, nobody reads it
        expected = f"one of {', '.join(accepted_datatypes(field.kind))}"
        raise StructureError(f"inputs.{field.name}.datatype", expected, describe(given.datatype))

    def _refuse_name(self, name: str) -> NoReturn:
        """Refuse a name that is no field, or one of training only, in the encoder's own words."""
        self._encoder.encode_columns("candidate", {name: [None]}, 1, root="inputs", shared=True)
        raise UnknownFieldError("inputs", "a field of the model", describe(name))


def _shape(given: InputTensor, field: Field) -> tuple[int, int, bool]:
    """Rows, elements of each, and whether they are a list.

    Raises:
        RequestError: Other dimensions than the field has, or no rows.
    """
    shape = given.shape
    if len(shape) == 1 and shape[0] > 0:
        return shape[0], 1, False
    listed = field.kind == "multi_valued"
    if len(shape) == _MATRIX and shape[0] > 0 and (shape[1] == 1 or (listed and shape[1] > 1)):
        return shape[0], shape[1], listed
    if 1 <= len(shape) <= _MATRIX and shape[0] == 0:
        raise NoCandidatesError(f"inputs.{given.name}.shape", "at least one row", f"{shape}")
    got = f"{shape}" if len(shape) <= _MATRIX else f"{len(shape)} dimensions"
    raise StructureError(f"inputs.{given.name}.shape", "[N] or [N, K]" if listed else "[N] or [N, 1]", got)


def _binary_size(name: str, parameters: dict[str, Any], *, binary: bool) -> int | None:
    """Bytes of a tensor's binary data, None where it has none.

    Raises:
        StructureError: No size, or data in a place that this service cannot reach.
    """
    size = parameters.get("binary_data_size")
    if type(size) is int and size >= 0 and binary and len(parameters) == 1:
        return size
    where = f"inputs.{name}.parameters"
    if "shared_memory_region" in parameters:
        raise StructureError(f"{where}.shared_memory_region", "data in the body", "a region of shared memory")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise StructureError(f"{where}.binary_data_size", "a number of bytes", describe(size))
    if not binary:
        raise StructureError(f"{where}.binary_data_size", "the header Inference-Header-Content-Length with it", "none")
    return size
