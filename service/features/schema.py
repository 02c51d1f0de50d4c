"""`features.json`: the schema of an encoder, strictly read and written the same way every time.

The file names each vocabulary's file with its size and SHA-256, so the digest of `features.json` covers all that
encoding depends on. Format "reaction-features", version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from service.bundle_format import strict_json
from service.features.errors import SchemaError
from service.features.fields import CategoricalField, Field, MultiValuedField, NumericField, Pooling, Side

__all__ = ["FORMAT", "VERSION", "FieldEntry", "Use", "VocabularyEntry", "decode_schema", "encode_schema"]

FORMAT: Final = "reaction-features"
VERSION: Final = 1

# encoded: has columns. ignored: accepted in a request, of no effect (a retraining dropped it). refused: training only.
Use = Literal["encoded", "ignored", "refused"]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class TokensEntry(_Document, frozen=True, tag_field="kind", tag="tokens"):
    """A vocabulary with a file."""

    file: str
    bytes: int
    sha256: str
    size: int


class HashedEntry(_Document, frozen=True, tag_field="kind", tag="hashed"):
    """A hashed vocabulary: its number of buckets is all of it."""

    buckets: int


VocabularyEntry = TokensEntry | HashedEntry


class _Common(_Document, frozen=True, tag_field="kind", kw_only=True):
    name: str
    side: Side
    serving_constant: str | int | float | list[str | int] | None = None
    use: Use = "encoded"
    vocabulary: VocabularyEntry | None = None


class _Categorical(_Common, frozen=True, tag="categorical"):
    pass


class _Numeric(_Common, frozen=True, tag="numeric", kw_only=True):
    edges: tuple[float, ...]


class _MultiValued(_Common, frozen=True, tag="multi_valued", kw_only=True):
    max_values: int
    pooling: Pooling
    separator: str


class _Header(msgspec.Struct, frozen=True):
    format: str
    version: int


class _Schema(_Document, frozen=True, kw_only=True):
    format: Literal["reaction-features"]
    version: Literal[1]
    fields: list[_Categorical | _Numeric | _MultiValued]


@dataclass(frozen=True, slots=True)
class FieldEntry:
    """A field, what is done with it, and its vocabulary (None unless it is encoded)."""

    field: Field
    use: Use
    vocabulary: VocabularyEntry | None


def encode_schema(entries: list[FieldEntry]) -> bytes:
    """Content of `features.json`, the same for the same entries."""
    documents: list[_Categorical | _Numeric | _MultiValued] = []
    for entry in entries:
        field = entry.field
        constant: Any = field.serving_constant
        common: dict[str, Any] = {
            "name": field.name,
            "side": field.side,
            "serving_constant": list(constant) if isinstance(constant, tuple) else constant,
            "use": entry.use,
            "vocabulary": entry.vocabulary,
        }
        match field:
            case CategoricalField():
                documents.append(_Categorical(**common))
            case NumericField():
                documents.append(_Numeric(**common, edges=field.edges))
            case MultiValuedField():
                documents.append(
                    _MultiValued(
                        **common, max_values=field.max_values, pooling=field.pooling, separator=field.separator
                    )
                )
    schema = _Schema(format="reaction-features", version=1, fields=documents)
    return msgspec.json.format(msgspec.json.encode(schema), indent=1) + b"\n"


def decode_schema(content: bytes, name: str) -> list[FieldEntry]:
    """Entries of a `features.json`.

    Args:
        content: The whole file.
        name: What messages call it.

    Raises:
        SchemaError: No JSON, another format or version, an unknown key, a wrong type, or a field that refuses its own
            declaration.
    """
    try:
        _refuse_other(msgspec.json.decode(content, type=_Header))
        schema = msgspec.json.decode(content, type=_Schema)
        strict_json.loads(content)
    except (ValueError, RecursionError) as error:  # msgspec's, UTF-8's and those of repeated names
        raise SchemaError(f"{name}: {error}") from error
    try:
        return [_entry(document) for document in schema.fields]
    except SchemaError as error:
        raise SchemaError(f"{name}: {error}") from error


def _refuse_other(header: _Header) -> None:
    if header.format != FORMAT:
        raise ValueError(f"expected format {FORMAT!r}, got {header.format!r}")
    if header.version != VERSION:
        raise ValueError(f"expected version {VERSION}, got {header.version}")


def _entry(document: _Categorical | _Numeric | _MultiValued) -> FieldEntry:
    field: Field
    common: tuple[str, Side] = (document.name, document.side)
    constant = document.serving_constant
    match document:
        case _Categorical():
            field = CategoricalField(*common, constant)
        case _Numeric():
            field = NumericField(*common, document.edges, constant)
        case _MultiValued():
            field = MultiValuedField(*common, document.max_values, document.pooling, document.separator, constant)
    return FieldEntry(field, document.use, document.vocabulary)
