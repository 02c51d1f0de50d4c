"""Scores as the protocol's answer: one output tensor, as JSON or as bytes after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import orjson

from service.errors import ModelOutputError
from service.features.errors import StructureError, UnknownFieldError, describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.openinference.document import InferRequest, Parameters

__all__ = ["OUTPUT", "VERSION", "InferWriter", "wants_binary"]

OUTPUT: Final = "pctr"
# A bundle has an id of its own, so a model has one version.
VERSION: Final = "1"


def wants_binary(request: InferRequest) -> bool:
    """Whether the output is to be binary: what is said of it, else of all outputs, else not.

    Raises:
        RequestError: Another output, the same one twice, or a form that this service does not have.
    """
    binary = _flag(request.parameters, "binary_data_output", "parameters", default=False)
    for index, output in enumerate(request.outputs or ()):
        where = f"outputs[{index}]"
        if output.name != OUTPUT:
            raise UnknownFieldError(f"{where}.name", f"'{OUTPUT}', the only output", describe(output.name))
        if index:
            raise StructureError(where, "each output once", f"{OUTPUT!r} twice")
        parameters = output.parameters or {}
        for other in ("classification", "shared_memory_region"):
            if parameters.get(other):
                raise StructureError(f"{where}.parameters.{other}", "nothing: it is not supported", "a value")
        binary = _flag(parameters, "binary_data", f"{where}.parameters", default=binary)
    return binary


def _flag(parameters: Parameters, name: str, where: str, *, default: bool) -> bool:
    value = (parameters or {}).get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise StructureError(f"{where}.{name}", "true or false", describe(value))
    return value


class InferWriter:
    """Writes answers of one model.

    Args:
        model: The model's id.
    """

    def __init__(self, model: str) -> None:
        names = msgspec.json.encode({"model_name": model, "model_version": VERSION})
        tensor = msgspec.json.encode({"name": OUTPUT, "datatype": "FP32"})
        self._head = names[:-1]
        self._outputs = b',"outputs":[' + tensor[:-1] + b',"shape":['

    def write(self, request_id: str | None, scores: NDArray[np.float32], *, binary: bool) -> tuple[bytes, int | None]:
        """The answer.

        Args:
            request_id: The client's id, if it gave one.
            scores: float32 (N,).
            binary: Whether scores are bytes after the JSON, else numbers in it; these are the shortest text that reads
                back as the same float32.

        Returns:
            The body, and the length of its JSON part where bytes come after it.

        Raises:
            ModelOutputError: A score is not finite.
        """
        head = self._head if request_id is None else self._head + b',"id":' + msgspec.json.encode(request_id)
        shape = b"%d]," % len(scores)
        if not binary:
            text = orjson.dumps(scores, option=orjson.OPT_SERIALIZE_NUMPY)
            if b"n" in text:  # orjson writes null for what is no finite number
                raise ModelOutputError("The model gave a score that is not finite.")
            return b"".join((head, self._outputs, shape, b'"data":', text, b"}]}")), None
        if not np.isfinite(scores).all():
            raise ModelOutputError("The model gave a score that is not finite.")
        packed = scores.astype("<f4", copy=False).tobytes()
        size = b'"parameters":{"binary_data_size":%d}}]}' % len(packed)
        document = b"".join((head, self._outputs, shape, size))
        return document + packed, len(document)
