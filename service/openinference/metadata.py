"""What the server and its model say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from service.openinference.answer import OUTPUT, VERSION
from service.openinference.layout import accepted_datatypes

if TYPE_CHECKING:
    from service.features import FeatureEncoder
    from service.features import Field as RawField

__all__ = [
    "NATURAL",
    "ErrorAnswer",
    "Live",
    "ModelMetadata",
    "ModelReady",
    "Ready",
    "ServerMetadata",
    "TensorMetadata",
    "model_metadata",
]

PLATFORM: Final = "reaction_onnx"
EXTENSIONS: Final = ["binary_tensor_data"]
# The datatype that loses nothing of what training read; `parameters` lists the others.
NATURAL: Final = {"categorical": "BYTES", "numeric": "FP64", "multi_valued": "BYTES"}


class ErrorAnswer(BaseModel):
    """Any error."""

    error: str = Field(description="Where the fault is, what was expected and what it got.")


class Live(BaseModel):
    """The server's answer while it is alive."""

    live: bool


class Ready(BaseModel):
    """The server's answer while it scores requests."""

    ready: bool


class ModelReady(BaseModel):
    """The answer while a model is served."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """One tensor."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 is the number of candidates; a context field may also have one row.")
    parameters: dict[str, Any] | None = Field(
        None, description="Of an input: the field's side and kind, whether it is used, and all datatypes it takes."
    )


class ModelMetadata(BaseModel):
    """The served model: an input for every field that a request may carry, each of them optional."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def model_metadata(model: str, encoder: FeatureEncoder) -> ModelMetadata:
    """Describe a model.

    Args:
        model: Its id.
        encoder: Its serving encoder.
    """
    inputs = [_input(field, "used") for field in encoder.fields]
    inputs += [_input(field, "ignored") for field in encoder.ignored]
    return ModelMetadata(
        name=model,
        versions=[VERSION],
        platform=PLATFORM,
        inputs=inputs,
        outputs=[TensorMetadata(name=OUTPUT, datatype="FP32", shape=[-1])],
    )


def _input(field: RawField, use: str) -> TensorMetadata:
    shape = [-1, field.width] if field.kind == "multi_valued" else [-1]
    return TensorMetadata(
        name=field.name,
        datatype=NATURAL[field.kind],
        shape=shape,
        parameters={
            "side": field.side,
            "kind": field.kind,
            "use": use,
            "optional": True,
            "datatypes": accepted_datatypes(field.kind),
        },
    )
