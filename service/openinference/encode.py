"""Tensors to id matrices: the ids are those that `/score` gives to the same raw values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from service.features.codecs import REFUSALS, LocatedError, NumericCodec
from service.features.errors import FieldValueError, describe
from service.features.lookup import ID_BYTES, MISSING
from service.openinference.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from service.features import FeatureEncoder, Side
    from service.features.codecs import Codec
    from service.openinference.document import InferRequest
    from service.openinference.tensors import Tensor

__all__ = ["TensorEncoder"]

# Numbers that are to be converted anyway are worth bisecting as arrays from about this many rows on.
_FEW: Final = 32
_SIDES: Final[tuple[Side, ...]] = ("context", "candidate")


class TensorEncoder:
    """Encodes the tensors of requests for one model. Safe to call from several threads.

    Args:
        encoder: The model's serving encoder.
        max_candidates: Most candidates in one request.
    """

    def __init__(self, encoder: FeatureEncoder, *, max_candidates: int) -> None:
        self._layout = Layout(encoder, max_candidates=max_candidates)
        self._codecs = {field.name: encoder.codec(field.name) for field in encoder.fields}
        self._columns = {side: [(c.name, c.width) for c in encoder.columns(side)] for side in _SIDES}

    def encode(
        self, request: InferRequest, body: bytes, header_length: int | None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids of a request.

        Args:
            request: Its JSON part.
            body: Its whole body.
            header_length: Bytes of the JSON part; None where it is the whole body.

        Returns:
            context_ids (1, Cc), or (N, Cc) in the pointwise form, and candidate_ids (N, Ci); int32.

        Raises:
            RequestError: `where` reads `inputs.price.data[3]`.
        """
        tensors = self._layout.tensors(request.inputs, body, header_length)
        contexts, candidates = self._layout.rows(tensors)
        codecs = self._codecs
        numbers: dict[int, list[Tensor]] = {}  # by their count: to be encoded together
        ids: dict[str, bytes] = {}
        with np.errstate(all="ignore"):  # a signalling NaN is as missing as a quiet one
            for name, tensor in tensors.items():
                codec = codecs.get(name)
                if codec is None:
                    continue  # accepted and ignored
                if tensor.rows == 1 and not tensor.listed:
                    ids[name] = self._of_one(tensor, codec)
                elif not isinstance(codec, NumericCodec) or tensor.datatype.family == "text":
                    ids[name] = self._of_many(tensor, codec, tensor.texts())
                elif tensor.rows <= _FEW or (tensor.data is not None and tensor.datatype.name != "FP32"):
                    ids[name] = self._of_many(tensor, codec, tensor.numbers())
                else:
                    numbers.setdefault(tensor.rows, []).append(tensor)
            for alike in numbers.values():
                ids.update(self._of_numbers(alike))
        return self._matrix("context", ids, contexts), self._matrix("candidate", ids, candidates)

    @staticmethod
    def _of_one(tensor: Tensor, codec: Codec) -> bytes:
        value = tensor.one()
        if type(value) is int and not isinstance(codec, NumericCodec):
            value = str(value)
        try:
            return codec.table[value]
        except REFUSALS:
            pass
        try:
            return codec.one(value)
        except FieldValueError as error:
            raise FieldValueError(f"inputs.{tensor.name}.data[0]", error.expected, error.got) from None

    @staticmethod
    def _of_many(tensor: Tensor, codec: Codec, values: Sequence[Any]) -> bytes:
        width = tensor.width
        if tensor.listed:
            values = [[text or "" for text in values[at : at + width]] for at in range(0, len(values), width)]
        try:
            return codec.plain_column(values)
        except (*REFUSALS, LocatedError):
            pass
        try:
            return codec.column(values)
        except LocatedError as located:
            error = located.error
            element = error.where.removeprefix(tensor.name)  # "[2]" where an element of a list is at fault
            where = f"inputs.{tensor.name}.data[{located.index}]{element}"
            raise FieldValueError(where, error.expected, error.got) from None

    def _of_numbers(self, tensors: list[Tensor]) -> dict[str, bytes]:
        """Ids of numeric fields of as many rows each."""
        block = np.empty((len(tensors), tensors[0].rows))
        for place, tensor in enumerate(tensors):
            block[place] = tensor.array()
        missing = np.isnan(block)
        if missing.sum() + np.isfinite(block).sum() != block.size:
            place, index = np.argwhere(np.isinf(block))[0]
            where = f"inputs.{tensors[place].name}.data[{index}]"
            got = describe(float(block[place, index]))
            raise FieldValueError(where, f"a finite number in the range of {tensors[place].datatype.name}", got)
        ids = np.empty(block.shape, np.int32)
        for place, tensor in enumerate(tensors):
            codec = self._codecs[tensor.name]
            assert isinstance(codec, NumericCodec)  # noqa: S101 - the caller has looked
            ids[place] = codec.of_numbers(block[place])
        ids[missing] = MISSING
        return {tensor.name: ids[place].tobytes() for place, tensor in enumerate(tensors)}

    def _matrix(self, side: Side, ids: dict[str, bytes], rows: int) -> NDArray[np.int32]:
        """Ids of one side, int32 (rows, width). A field without ids is missing; a single row stands for all."""
        parts: list[bytes] = []
        width = 0
        for name, columns in self._columns[side]:
            width += columns
            found = ids.get(name)
            if found is None:
                found = self._codecs[name].missing
            if len(found) != columns * rows * ID_BYTES:
                found = b"".join(found[at : at + ID_BYTES] * rows for at in range(0, len(found), ID_BYTES))
            parts.append(found)
        joined = bytearray(b"").join(parts)  # an array over a bytearray may be written to
        return np.frombuffer(joined, dtype=np.int32).reshape(width, rows).T.copy(order="C")
