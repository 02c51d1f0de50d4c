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
    from collections.abc import Iterable

    from service.features import FeatureEncoder, Field
    from service.openinference.document import InputTensor

__all__ = ["Layout", "accepted_datatypes"]

_ACCEPTED: Final[dict[str, frozenset[str]]] = {
    "categorical": frozenset({"text", "integer"}),
    "numeric": frozenset({"text", "integer", "real"}),
    "multi_valued": frozenset({"text", "integer"}),
}
_NOTHING: Final = (b"", 0, 0)


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
        self._fields = {field.name: field for field in (*encoder.fields, *encoder.ignored)}
        self._ignored = frozenset(field.name for field in encoder.ignored)
        self._datatypes = {kind: {name: DATATYPES[name] for name in accepted_datatypes(kind)} for kind in _ACCEPTED}

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
        tensors: dict[str, Tensor] = {}
        for given in inputs:
            name = given.name
            field = self._fields.get(name)
            if field is None:
                self._refuse_name(name)
            if name in tensors:
                raise StructureError(f"inputs.{name}", "one tensor of the name", "two")
            shape = _shape(given, field)
            size = _binary_size(given, binary=header_length is not None) if given.parameters else None
            datatype = self._datatypes[field.kind].get(given.datatype) or self._other_datatype(given, field)
            data: Any = given.data
            if size is None:
                if not isinstance(data, list):
                    raise StructureError(f"inputs.{name}", "data, or binary data of a stated size", "neither")
                data = flat_data(name, data, shape[0], shape[1])
                tensors[name] = Tensor(name, datatype, shape, data, _NOTHING)
                continue
            if isinstance(data, list):
                raise StructureError(f"inputs.{name}", "data, or binary data of a stated size", "both")
            if size > end - offset:
                raise StructureError(
                    f"inputs.{name}.parameters.binary_data_size",
                    f"at most the {end - offset} bytes that are left of the body",
                    f"{size}",
                )
            tensors[name] = Tensor(name, datatype, shape, None, (body, offset, size))
            offset += size
        if offset != end:
            raise StructureError("body", f"{offset} bytes, as its JSON and the sizes of its tensors say", f"{end}")
        return tensors

    def rows(self, tensors: Iterable[Tensor]) -> tuple[int, int]:
        """Rows of the two id matrices: 1 or N of context, N candidates.

        Raises:
            RequestError: Tensors that differ in length, none, or too many candidates.
        """
        contexts, count = 1, 0
        sides = {name: field.side for name, field in self._fields.items()}
        tensors = list(tensors)
        for tensor in tensors:
            if sides[tensor.name] == "context":
                contexts = max(contexts, tensor.rows)
            elif not count:
                count = tensor.rows
        if not tensors:
            raise NoCandidatesError("inputs", "at least one tensor", "none")
        count = count or contexts  # without any candidate field there are as many candidates as rows of context
        if count > self._max_candidates:
            raise MemberError("inputs", f"at most {self._max_candidates} candidates", f"{count}")
        for tensor in tensors:
            shared = sides[tensor.name] == "context"
            if tensor.rows != count and not (shared and tensor.rows == 1):
                raise RaggedColumnsError(
                    f"inputs.{tensor.name}.shape",
                    f"{'1 row or ' if shared else ''}{count} rows, as there are candidates",
                    f"{tensor.rows}",
                )
        return contexts, count

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
    match given.shape:
        case [rows]:
            width, listed = 1, False
        case [rows, width]:
            listed = field.kind == "multi_valued"
        case _:
            rows = width = -1
            listed = False
    if rows == 0:
        raise NoCandidatesError(f"inputs.{given.name}.shape", "at least one row", f"{given.shape}")
    if rows < 0 or width < 1 or (width > 1 and not listed):
        expected = "[N] or [N, K]" if field.kind == "multi_valued" else "[N] or [N, 1]"
        got = f"{given.shape}" if len(given.shape) <= 2 else f"{len(given.shape)} dimensions"  # noqa: PLR2004
        raise StructureError(f"inputs.{given.name}.shape", expected, got)
    return rows, width, listed


def _binary_size(given: InputTensor, *, binary: bool) -> int | None:
    """Bytes of a tensor's binary data, None where it has none.

    Raises:
        StructureError: No size, or data in a place that this service cannot reach.
    """
    parameters: dict[str, Any] = given.parameters  # type: ignore[assignment]  # the caller has looked
    where = f"inputs.{given.name}.parameters"
    if "shared_memory_region" in parameters:
        raise StructureError(f"{where}.shared_memory_region", "data in the body", "a region of shared memory")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise StructureError(f"{where}.binary_data_size", "a number of bytes", describe(size))
    if not binary:
        raise StructureError(f"{where}.binary_data_size", "the header Inference-Header-Content-Length with it", "none")
    return size
