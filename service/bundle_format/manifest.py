"""`manifest.json`: what a bundle is made of and where it came from. Format "reaction-bundle", version 1.

Errors::

    BundleError(ValueError)
    ├── BundleMissingError     no bundle, or a file that the manifest names is absent
    ├── BundleCorruptError     a file differs from its digest, or the manifest does not name it
    ├── BundleFormatError      a file that is not in the format, or in another version of it
    ├── BundleChangedError     another bundle than the one that is served already
    ├── BundleSignatureError   no key that was pinned vouches for the manifest
    ├── BundlePrecisionError   asked for tables in a precision that the bundle does not hold
    └── BundleExistsError      the destination of a write is taken
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from service.bundle_format import strict_json

__all__ = [
    "MANIFEST_FILE",
    "PRECISIONS",
    "BundleChangedError",
    "BundleCorruptError",
    "BundleError",
    "BundleExistsError",
    "BundleFormatError",
    "BundleMissingError",
    "BundlePrecisionError",
    "BundleSignatureError",
    "FileEntry",
    "Inputs",
    "Manifest",
    "ModelFacts",
    "Precision",
    "ReducedPrecision",
    "VariantFacts",
    "decode_manifest",
    "encode_manifest",
]

MANIFEST_FILE: Final = "manifest.json"
FORMAT: Final = "reaction-bundle"
VERSION: Final = 1
OUTPUT: Final = "pctr"
_MOST_FILES: Final = 10_000

ReducedPrecision: TypeAlias = Literal["float16", "int8"]
"""What the tables of a variant hold; `model.onnx` itself holds float32, which every bundle has."""

Precision: TypeAlias = Literal["float32", "float16", "int8"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

# It stands in URLs, metric labels and directory names.
_is_model_id = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}").fullmatch
_is_sha256 = re.compile(r"[0-9a-f]{64}").fullmatch


class BundleError(ValueError):
    """Root of the tree above; messages say file, expected, got."""


class BundleMissingError(BundleError):
    """No bundle at the path, or a file of it is absent."""


class BundleCorruptError(BundleError):
    """A file is not the one that the manifest digested."""


class BundleFormatError(BundleError):
    """A file breaks its format."""


class BundleChangedError(BundleError):
    """The bundle is not the one that was asked for by the digest of its manifest."""


class BundleSignatureError(BundleError):
    """No pinned key vouches for the manifest, or the pinned keys cannot be read."""


class BundlePrecisionError(BundleError):
    """The bundle holds no graph of the precision asked for."""


class BundleExistsError(BundleError):
    """Something is at the destination already; nothing is ever overwritten."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Inputs(_Strict, frozen=True):
    """Columns of the graph's two inputs, which are also the widths of the encoder's id matrices."""

    context_ids: int
    candidate_ids: int


class FileEntry(_Strict, frozen=True):
    """What a file must be: SHA-256 in lower-case hexadecimal, and size."""

    sha256: str
    bytes: int


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The typed part of `Manifest.model`; other keys are free.

    Attributes:
        parameters: Parameters of the exported graph.
        flops: Multiplications plus additions of dense layers, per candidate.
        folded_fields: Fields whose projection is folded into the table.
        dropped_fields: Fields that requests may carry and the model does not read.
        negative_sampling_rate: Share of negatives kept in training; its logit correction is in the graph.
        tolerance: Largest difference of a score from its golden score.
    """

    parameters: int | None = None
    flops: int | None = None
    folded_fields: tuple[str, ...] = ()
    dropped_fields: tuple[str, ...] = ()
    negative_sampling_rate: float = 1.0
    tolerance: float = 1e-6


class VariantFacts(_Strict, frozen=True, kw_only=True):
    """A graph beside `model.onnx` that computes the same from smaller tables, and what export measured of it.

    Attributes:
        file: The graph; its tables may lie in the same name with `.data` added.
        tolerance: Largest difference of a score from its golden score.
        parity: Largest difference of a probability from the fusion form's that export saw.
        rows: Rows that it was compared on.
        auc_change: AUC on the run's validation sample, less that of `model.onnx`.
        log_loss_change: The same for log loss, in nats.
        bytes: Of the graph and its tables.
        bytes_ratio: Those, over those of `model.onnx`.
        time_ratio: Candidates of a call to the time it takes, over that of `model.onnx`.
    """

    file: str
    tolerance: float
    parity: float
    rows: int
    auc_change: float
    log_loss_change: float
    bytes: int
    bytes_ratio: float
    time_ratio: dict[str, float]


class Manifest(_Strict, frozen=True, kw_only=True):
    """A bundle's manifest.

    Attributes:
        model_id: Name of the model in answers, URLs and metrics.
        created: When it was written, ISO 8601 with an offset.
        files: Every other file of the bundle by relative POSIX path.
        inputs: Columns of the graph's inputs.
        training: Metrics, data set, run id, git revision, library versions; free JSON.
        model: See `ModelFacts`, and free JSON beside it.
        variants: Graphs with tables of less precision.
    """

    format: Literal["reaction-bundle"] = "reaction-bundle"
    version: Literal[1] = 1
    model_id: str
    created: str
    files: dict[str, FileEntry]
    inputs: Inputs
    output: Literal["pctr"] = "pctr"
    training: dict[str, Any] = {}
    model: dict[str, Any] = {}
    variants: dict[ReducedPrecision, VariantFacts] = {}

    @property
    def facts(self) -> ModelFacts:
        """The typed part of `model`."""
        return msgspec.convert(self.model, ModelFacts)


class _Header(msgspec.Struct, frozen=True):
    format: str
    version: int


def encode_manifest(manifest: Manifest) -> bytes:
    """Content of `manifest.json`.

    Raises:
        BundleFormatError: A value that reading would refuse.
    """
    try:
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    except (TypeError, ValueError) as error:
        raise BundleFormatError(f"manifest: expected values that JSON can hold, got {error}") from error
    decode_manifest(content, "manifest")
    return content


def decode_manifest(content: bytes, name: str) -> Manifest:
    """Manifest of a file's content.

    Args:
        content: The whole file.
        name: What messages call it.

    Raises:
        BundleFormatError: No JSON, another format or version, an unknown key, a wrong type or value.
    """
    try:
        _refuse_other(msgspec.json.decode(content, type=_Header))
        manifest = msgspec.json.decode(content, type=Manifest)
        facts = manifest.facts
        strict_json.loads(content)
    except (ValueError, RecursionError) as error:  # msgspec's, UTF-8's and those of repeated names
        raise BundleFormatError(f"{name}: {error}") from error
    _check(manifest, facts, name)
    _check_variants(manifest, name)
    return manifest


def _refuse_other(header: _Header) -> None:
    if header.format != FORMAT:
        raise ValueError(f"expected format {FORMAT!r}, got {header.format!r}")
    if header.version != VERSION:
        raise ValueError(f"expected version {VERSION}, got {header.version}")


def _check(manifest: Manifest, facts: ModelFacts, name: str) -> None:
    if _is_model_id(manifest.model_id) is None:
        raise BundleFormatError(
            f"{name}, model_id: expected 1 to 128 letters, digits, '.', '_' or '-', got {manifest.model_id!a}"
        )
    try:
        created = datetime.fromisoformat(manifest.created)
    except ValueError as error:
        raise BundleFormatError(f"{name}, created: expected an ISO 8601 time, got {manifest.created!a}") from error
    if created.tzinfo is None:
        raise BundleFormatError(f"{name}, created: expected a time with an offset, got {manifest.created!a}")
    if len(manifest.files) > _MOST_FILES:
        raise BundleFormatError(f"{name}, files: expected at most {_MOST_FILES}, got {len(manifest.files)}")
    for path, entry in manifest.files.items():
        if _is_sha256(entry.sha256) is None or entry.bytes < 0:
            raise BundleFormatError(f"{name}, files: expected a SHA-256 and a size for {path!a}, got {entry}")
    if min(manifest.inputs.context_ids, manifest.inputs.candidate_ids) < 0:
        raise BundleFormatError(f"{name}, inputs: expected counts of columns, got {manifest.inputs}")
    if not 0 < facts.negative_sampling_rate <= 1:
        raise BundleFormatError(
            f"{name}, model.negative_sampling_rate: expected above 0 and up to 1, got {facts.negative_sampling_rate}"
        )
    if not 0 < facts.tolerance < 1:
        raise BundleFormatError(f"{name}, model.tolerance: expected above 0 and below 1, got {facts.tolerance}")


def _check_variants(manifest: Manifest, name: str) -> None:
    for precision, variant in manifest.variants.items():
        where = f"{name}, variants.{precision}"
        if variant.file not in manifest.files:
            raise BundleFormatError(f"{where}.file: expected a file of the manifest, got {variant.file!a}")
        if not 0 < variant.tolerance < 1:
            raise BundleFormatError(f"{where}.tolerance: expected above 0 and below 1, got {variant.tolerance}")
