"""An encoder on disk: `features.json` beside `vocabularies/NNN.safetensors`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.features.errors import SchemaError
from service.features.files import PathError, confined, digest_bytes, write_file
from service.features.schema import FieldEntry, HashedEntry, TokensEntry, Use, decode_schema, encode_schema
from service.features.vocabulary import AnyVocabulary, HashedVocabulary, Vocabulary
from service.features.vocabulary_file import pack_tokens, unpack_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from service.features.fields import Field
    from service.features.schema import VocabularyEntry

__all__ = ["SCHEMA_FILE", "VOCABULARY_FOLDER", "OpenedFields", "Part", "build_schema", "open_fields", "save_fields"]

SCHEMA_FILE: Final = "features.json"
VOCABULARY_FOLDER: Final = "vocabularies"


@dataclass(frozen=True, slots=True)
class BuiltSchema:
    """Content of every file, by relative path; digest is that of `features.json`."""

    files: dict[str, bytes]
    digest: str


@dataclass(frozen=True, slots=True)
class Part:
    """A field as it was stored."""

    field: Field
    use: Use
    vocabulary: AnyVocabulary | None


@dataclass(frozen=True, slots=True)
class OpenedFields:
    """What `open_fields` read."""

    parts: tuple[Part, ...]
    digest: str


def build_schema(parts: Sequence[Part]) -> BuiltSchema:
    """All files of an encoder. The same encoder gives the same bytes, under every hash seed."""
    files: dict[str, bytes] = {}
    entries: list[FieldEntry] = []
    for number, part in enumerate(parts):
        vocabulary = part.vocabulary
        entry: VocabularyEntry | None = None
        if isinstance(vocabulary, Vocabulary):
            name = f"{VOCABULARY_FOLDER}/{number:03d}.safetensors"
            files[name] = pack_tokens(vocabulary.tokens())
            digest = digest_bytes(files[name])
            entry = TokensEntry(file=name, bytes=digest.bytes, sha256=digest.sha256, size=len(vocabulary))
        elif isinstance(vocabulary, HashedVocabulary):
            entry = HashedEntry(buckets=vocabulary.buckets)
        entries.append(FieldEntry(part.field, part.use, entry))
    files[SCHEMA_FILE] = encode_schema(entries)
    return BuiltSchema(files, hashlib.sha256(files[SCHEMA_FILE]).hexdigest())


def save_fields(directory: Path, parts: Sequence[Part]) -> None:
    """Write an encoder's files into an existing directory.

    Raises:
        FileExistsError: One of them is there already.
    """
    (directory / VOCABULARY_FOLDER).mkdir(exist_ok=True)
    for name, content in build_schema(parts).files.items():
        write_file(directory / name, content)


def open_fields(directory: Path, verified: Mapping[str, str] | None) -> OpenedFields:
    """Read and check an encoder's files; see `FeatureEncoder.open`."""
    content = _read(directory, SCHEMA_FILE)
    name = str(directory / SCHEMA_FILE)
    parts: list[Part] = []
    seen: set[str] = set()
    for entry in decode_schema(content, name):
        field, stored = entry.field, entry.vocabulary
        if (entry.use == "encoded") != (stored is not None):
            raise SchemaError(f"{name}, field {field.name!r}: expected a vocabulary if and only if it is encoded")
        vocabulary: AnyVocabulary | None = None
        if isinstance(stored, HashedEntry):
            vocabulary = HashedVocabulary(stored.buckets, field.reserved)
        elif isinstance(stored, TokensEntry):
            if stored.file in seen:
                raise SchemaError(f"{name}, field {field.name!r}: expected a file of its own, got {stored.file} again")
            seen.add(stored.file)
            vocabulary = _open_tokens(directory, stored, field, verified)
        parts.append(Part(field, entry.use, vocabulary))
    return OpenedFields(tuple(parts), hashlib.sha256(content).hexdigest())


def _read(directory: Path, relative: str) -> bytes:
    try:
        return confined(directory, relative).read_bytes()
    except PathError as error:
        raise SchemaError(f"{directory}: {error}") from error
    except OSError as error:
        raise SchemaError(f"{directory / relative}: expected a readable file, got {error.strerror}") from error


def _open_tokens(directory: Path, stored: TokensEntry, field: Field, verified: Mapping[str, str] | None) -> Vocabulary:
    content = _read(directory, stored.file)
    name = str(directory / stored.file)
    if len(content) != stored.bytes:
        raise SchemaError(f"{name}: expected {stored.bytes} bytes, got {len(content)}")
    known = None if verified is None else verified.get(stored.file)
    sha256 = digest_bytes(content).sha256 if known is None else known
    if sha256 != stored.sha256:
        raise SchemaError(f"{name}: expected SHA-256 {stored.sha256}, got {sha256}")
    vocabulary = Vocabulary(unpack_tokens(content, name), field.reserved)
    if len(vocabulary) != stored.size:
        raise SchemaError(f"{name}: expected {stored.size} ids, got {len(vocabulary)}")
    return vocabulary
