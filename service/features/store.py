"""An encoder on disk: `features.json` beside `vocabularies/NNN.safetensors`."""

from __future__ import annotations

from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Final

from service.features.errors import SchemaError
from service.features.files import PathError, confined, digest_bytes, open_file, read_file, write_file
from service.features.schema import FieldEntry, HashedEntry, TokensEntry, Use, decode_schema, encode_schema
from service.features.vocabulary import AnyVocabulary, HashedVocabulary, Vocabulary
from service.features.vocabulary_file import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from service.features.fields import Field
    from service.features.schema import VocabularyEntry

__all__ = ["SCHEMA_FILE", "VOCABULARY_FOLDER", "OpenedFields", "Part", "open_fields", "save_fields", "write_fields"]

SCHEMA_FILE: Final = "features.json"
VOCABULARY_FOLDER: Final = "vocabularies"
LARGEST_SCHEMA: Final = 1 << 25
"""Bytes; that of 39 fields with a thousand edges each takes under 2^20."""


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


def write_fields(parts: Sequence[Part], write: Callable[[str, bytes], object]) -> str:
    """Give away the content of every file of an encoder, one at a time since some are large.

    The same encoder gives the same bytes, under every hash seed.

    Args:
        parts: Fields in the order of the schema.
        write: Takes a relative POSIX path and the content.

    Returns:
        SHA-256 of `features.json`, the encoder's digest.
    """
    entries: list[FieldEntry] = []
    for number, part in enumerate(parts):
        vocabulary = part.vocabulary
        entry: VocabularyEntry | None = None
        if isinstance(vocabulary, Vocabulary):
            name = f"{VOCABULARY_FOLDER}/{number:03d}.safetensors"
            content = pack(vocabulary.content())
            digest = digest_bytes(content)
            write(name, content)
            entry = TokensEntry(file=name, bytes=digest.bytes, sha256=digest.sha256, size=len(vocabulary))
        elif isinstance(vocabulary, HashedVocabulary):
            entry = HashedEntry(buckets=vocabulary.buckets)
        entries.append(FieldEntry(part.field, part.use, entry))
    schema = encode_schema(entries)
    write(SCHEMA_FILE, schema)
    return digest_bytes(schema).sha256


def save_fields(directory: Path, parts: Sequence[Part]) -> None:
    """Write an encoder's files into an existing directory, `features.json` last.

    Raises:
        FileExistsError: One of them is there already.
    """
    (directory / VOCABULARY_FOLDER).mkdir(exist_ok=True)
    write_fields(parts, lambda name, content: write_file(directory / name, content))


def open_fields(directory: Path, verified: Mapping[str, str] | None) -> OpenedFields:
    """Read and check an encoder's files; see `FeatureEncoder.open`."""
    name = str(directory / SCHEMA_FILE)
    try:
        content = read_file(_inside(directory, SCHEMA_FILE), LARGEST_SCHEMA)
    except PathError as error:
        raise SchemaError(str(error)) from error
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
    return OpenedFields(tuple(parts), digest_bytes(content).sha256)


def _inside(directory: Path, relative: str) -> Path:
    try:
        return confined(directory, relative)
    except PathError as error:
        raise SchemaError(f"{directory}: {error}") from error
    except OSError as error:
        raise SchemaError(f"{directory / relative}: expected a readable file, got {error.strerror}") from error


def _open_tokens(directory: Path, stored: TokensEntry, field: Field, verified: Mapping[str, str] | None) -> Vocabulary:
    """Map a vocabulary's file; size and digest are compared before anything of it is parsed."""
    path = _inside(directory, stored.file)
    size = path.stat().st_size
    if size != stored.bytes or not size:  # an empty file cannot be mapped
        raise SchemaError(f"{path}: expected {stored.bytes or 'some'} bytes, got {size}")
    with open_file(path) as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    known = None if verified is None else verified.get(stored.file)
    sha256 = digest_bytes(memoryview(content)).sha256 if known is None else known
    if sha256 != stored.sha256:
        raise SchemaError(f"{path}: expected SHA-256 {stored.sha256}, got {sha256}")
    vocabulary = Vocabulary(unpack(content, str(path)), field.reserved)
    if len(vocabulary) != stored.size:
        raise SchemaError(f"{path}: expected {stored.size} ids, got {len(vocabulary)}")
    return vocabulary
