"""Every error of the feature contract, as one tree.

::

    FeatureError(ValueError)
    ├── RequestError              raw values that cannot be encoded: says where, expected and got
    │   ├── FieldValueError         a value of the wrong type, or one without a token (NaN, lone surrogate, ...)
    │   ├── UnknownFieldError       a name that is no field, or a field that only training has
    │   ├── MisplacedFieldError     a field of the other side
    │   ├── StructureError          not an object or an array where one is needed
    │   │   └── RaggedColumnsError    columns of unequal length
    │   └── NoCandidatesError       nothing to score
    └── SchemaError               a field, a vocabulary or a `features.json` that breaks the contract

A `RequestError` is the sender's fault and carries `where`, `expected` and `got`, so that any door (HTTP, command
line, library) can answer in its own form. A `SchemaError` is the fault of whoever wrote the artefact.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "FeatureError",
    "FieldValueError",
    "MisplacedFieldError",
    "NoCandidatesError",
    "RaggedColumnsError",
    "RequestError",
    "SchemaError",
    "StructureError",
    "UnknownFieldError",
    "describe",
]

_LONGEST_QUOTE: Final = 60
_LONGEST_INT_BITS: Final = 192


class FeatureError(ValueError):
    """Root of the tree above."""


class SchemaError(FeatureError):
    """A field declaration, a vocabulary or a `features.json` breaks the feature contract."""


class RequestError(FeatureError):
    """Raw values cannot be encoded.

    Args:
        where: Place of the fault, such as `candidates[3].price_band`.
        expected: What the place may hold.
        got: What it holds, already shortened.
    """

    def __init__(self, where: str, expected: str, got: str) -> None:
        super().__init__(f"{where}: expected {expected}, got {got}")
        self.where = where
        self.expected = expected
        self.got = got


class FieldValueError(RequestError):
    """A raw value has no token: wrong type, not finite, or not encodable text."""


class UnknownFieldError(RequestError):
    """A name that the schema does not have, or that only training has."""


class MisplacedFieldError(RequestError):
    """A field of the other side."""


class StructureError(RequestError):
    """Something other than the object or array that the place needs."""


class RaggedColumnsError(StructureError):
    """Columns of one request differ in length."""


class NoCandidatesError(RequestError):
    """A request without a single candidate."""


def describe(value: object) -> str:
    """Name a raw value for an error message: short, printable, and safe for every value.

    Integers beyond Python's int-to-text limit and text with lone surrogates are what makes a plain `repr` unsafe.
    """
    match value:
        case None:
            text = "null"
        case bool():
            text = f"the boolean {str(value).lower()}"
        case int():
            long = value.bit_length() > _LONGEST_INT_BITS
            text = f"an integer of {value.bit_length()} bits" if long else f"the integer {value:d}"
        case float():
            text = f"the float {float(value)!r}"
        case str():
            # repr escapes whatever cannot be printed, lone surrogates included
            text = f"the text {value[:_LONGEST_QUOTE]!r}"
            if len(value) > _LONGEST_QUOTE:
                text += f"... of {len(value)} characters"
        case list() | tuple():
            text = f"an array of {len(value)} elements"
        case dict():
            text = "an object"
        case _:
            text = f"a value of type {type(value).__name__}"
    return text
