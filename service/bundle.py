"""The bundle: what export writes and the service reads.

::

    bundles/<id>/ manifest.json [manifest.sig] features.json vocabularies/ model.onnx[.data] golden.jsonl reference.json
                  model.float16.onnx[.data] model.int8.onnx[.data]    where export found them worth keeping

A bundle is read only as a whole: every file its manifest names is there and unchanged, and no other file is. It
appears whole or not at all. The tree of errors is drawn in `service.bundle_format.manifest`.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from service.bundle_format.files import (
    FEATURES_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    UNLISTED,
    check_files,
    present,
    read,
    refuse_changed,
    voucher,
)
from service.bundle_format.golden import GoldenRow, decode_golden, encode_golden
from service.bundle_format.manifest import (
    MANIFEST_FILE,
    PRECISIONS,
    BundleChangedError,
    BundleCorruptError,
    BundleError,
    BundleExistsError,
    BundleFormatError,
    BundleMissingError,
    BundlePrecisionError,
    BundleSignatureError,
    FileEntry,
    Inputs,
    Manifest,
    ModelFacts,
    Precision,
    ReducedPrecision,
    VariantFacts,
    decode_manifest,
    encode_manifest,
)
from service.bundle_format.reference import decode_reference
from service.bundle_format.signature import PublicKeys
from service.features import FeatureEncoder, SchemaError
from service.features.files import digest_bytes, digest_files, new_directory, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from service.features.files import FileState

__all__ = [
    "MODEL_FILE",
    "PRECISIONS",
    "Bundle",
    "BundleChangedError",
    "BundleCorruptError",
    "BundleError",
    "BundleExistsError",
    "BundleFormatError",
    "BundleMissingError",
    "BundlePrecisionError",
    "BundleSignatureError",
    "FileEntry",
    "GoldenRow",
    "Inputs",
    "Manifest",
    "ModelFacts",
    "Precision",
    "PublicKeys",
    "ReducedPrecision",
    "StagedBundle",
    "Variant",
    "VariantFacts",
    "read_bundle",
    "write_bundle",
]


@dataclass(frozen=True, slots=True)
class Variant:
    """One graph of a bundle.

    Attributes:
        path: The graph.
        tolerance: Largest difference of a score from its golden score.
        facts: What export measured of it; None for float32, which the others are compared with.
    """

    path: Path
    tolerance: float
    facts: VariantFacts | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read whole.

    Attributes:
        path: Its directory, with symbolic links on the way there resolved.
        manifest: What it is made of.
        manifest_bytes: The manifest as it was read and checked, which is what a signature is over.
        encoder: Raw values to ids.
        golden: Rows with known ids and scores.
        reference: Statistics of the training data, for feature health.
        model_path: The graph with float32 tables.
        signed_by: Id of the pinned key that vouches for it; None where no key was asked for.
        states: What its files were when they were looked at.
    """

    path: Path
    manifest: Manifest
    manifest_bytes: bytes = field(repr=False)
    encoder: FeatureEncoder
    golden: tuple[GoldenRow, ...]
    reference: dict[str, Any]
    model_path: Path
    signed_by: str | None = None
    states: Mapping[Path, FileState] = field(default_factory=dict, repr=False)

    @property
    def variants(self) -> dict[Precision, Variant]:
        """Every precision there is, float32 first."""
        found: dict[Precision, Variant] = {"float32": Variant(self.model_path, self.manifest.facts.tolerance)}
        for precision, facts in self.manifest.variants.items():
            found[precision] = Variant(self.path / facts.file, facts.tolerance, facts)
        return found

    def refuse_changed(self) -> None:
        """Make sure that the files opened since are those that were digested.

        Some are opened again by their path, by ONNX Runtime above all. To be called once nothing more will be opened.

        Raises:
            BundleChangedError: One of them was replaced or written to.
        """
        refuse_changed(self.states)

    def variant(self, precision: Precision) -> Variant:
        """The graph of a precision.

        Raises:
            BundlePrecisionError: The bundle does not hold it.
        """
        variants = self.variants
        if precision not in variants:
            raise BundlePrecisionError(
                f"{self.path}: expected a precision of this bundle ({', '.join(variants)}), got {precision}"
            )
        return variants[precision]


class StagedBundle:
    """A bundle in the making: its directory, and a method for each file that this module knows how to write.

    The caller writes `model.onnx` (and its data file) into `path` and calls every method once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest: Manifest | None = None

    def write_encoder(self, encoder: FeatureEncoder) -> None:
        """Write `features.json` and `vocabularies/`; takes what `FeatureEncoder.for_serving` gives."""
        encoder.save(self.path)

    def write_golden(self, rows: Iterable[GoldenRow]) -> None:
        """Write `golden.jsonl`. Raw values come back exactly: text, integers of any size, and float64.

        Raises:
            BundleFormatError: A value that JSON cannot hold, such as NaN.
        """
        write_file(self.path / GOLDEN_FILE, encode_golden(rows, GOLDEN_FILE))

    def write_reference(self, reference: Mapping[str, Any]) -> None:
        """Write `reference.json`."""
        write_file(self.path / REFERENCE_FILE, _encode_json(reference, REFERENCE_FILE))

    def describe(
        self,
        model_id: str,
        inputs: Inputs,
        training: Mapping[str, Any],
        model: Mapping[str, Any],
        created: datetime | None = None,
        *,
        variants: Mapping[ReducedPrecision, VariantFacts] | None = None,
    ) -> None:
        """State what the manifest says beside the digests; `created` is now unless given.

        JSON has no NaN: a metric that is none is written as null.
        """
        moment = datetime.now(UTC) if created is None else created
        self._manifest = Manifest(
            model_id=model_id,
            created=moment.isoformat(timespec="seconds"),
            files={},
            inputs=inputs,
            training=dict(training),
            model=dict(model),
            variants=dict(variants or {}),
        )

    def finish(self) -> None:
        """Digest every file, write the manifest, and read the whole back as the service will.

        Raises:
            BundleFormatError: `describe` was never called.
            BundleError: The service would refuse the bundle.
        """
        if self._manifest is None:
            raise BundleFormatError(f"{MANIFEST_FILE}: expected a description of the model, got none")
        names = sorted(present(self.path) - UNLISTED)
        found = digest_files(self.path / name for name in names)
        files = {name: found[self.path / name] for name in names}
        manifest = msgspec.structs.replace(
            self._manifest,
            files={name: FileEntry(sha256=digest.sha256, bytes=digest.bytes) for name, digest in files.items()},
        )
        write_file(self.path / MANIFEST_FILE, encode_manifest(manifest))
        read_bundle(self.path)


@contextlib.contextmanager
def write_bundle(destination: Path) -> Iterator[StagedBundle]:
    """Write a bundle that appears at its destination whole, checked and on disk, or leaves nothing.

    Args:
        destination: Must not exist.

    Yields:
        The bundle to fill, in a directory beside the destination.

    Raises:
        BundleExistsError: The destination exists.
        BundleError: The service would refuse what was written.
    """
    try:
        with new_directory(destination) as path:
            staged = StagedBundle(path)
            yield staged
            staged.finish()
    except FileExistsError as error:
        if os.path.lexists(destination):
            raise BundleExistsError(str(error)) from error
        raise


def read_bundle(
    path: Path, *, verify: bool = True, manifest_sha256: str | None = None, keys: PublicKeys | None = None
) -> Bundle:
    """Read a bundle and check all of it but the graph, which `Scorer` checks.

    Args:
        path: Its directory; may itself be a symbolic link, nothing inside may.
        verify: Digest every file. False checks presence and sizes only.
        manifest_sha256: What the manifest must be, and so all that it digests; None for any.
        keys: Keys of which one must vouch for the manifest; None asks for none.

    Raises:
        BundleChangedError: Another manifest.
        BundleSignatureError: None of the keys vouches for it.
        BundleMissingError: No such directory, no manifest, or an absent file.
        BundleCorruptError: A file of another size or digest, one the manifest does not name, a symbolic link, or a
            graph that reads other files.
        BundleFormatError: A file breaks its format, or is longer than any of its kind.
    """
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing"
        raise BundleMissingError(f"{path}: expected the directory of a bundle, got {got}")
    root = path.resolve()  # once, so that a link moved meanwhile cannot mix two bundles
    content = read(root, MANIFEST_FILE)
    found = digest_bytes(content).sha256
    if manifest_sha256 not in (None, found):
        raise BundleChangedError(
            f"{root / MANIFEST_FILE}: expected SHA-256 {manifest_sha256}, got {found}: "
            "the bundle changed on disk; restart the service to serve it"
        )
    signed_by = None if keys is None else voucher(root, content, keys)
    manifest = decode_manifest(content, str(root / MANIFEST_FILE))
    states = check_files(root, manifest, verify=verify)
    try:
        encoder = FeatureEncoder.open(root, verified={name: entry.sha256 for name, entry in manifest.files.items()})
    except SchemaError as error:
        raise BundleFormatError(str(error)) from error
    widths = Inputs(context_ids=encoder.width("context"), candidate_ids=encoder.width("candidate"))
    if widths != manifest.inputs:
        raise BundleFormatError(f"{root / FEATURES_FILE}: expected the columns of {manifest.inputs}, got {widths}")
    return Bundle(
        path=root,
        manifest=manifest,
        manifest_bytes=content,
        encoder=encoder,
        golden=decode_golden(read(root, GOLDEN_FILE), str(root / GOLDEN_FILE), widths),
        reference=decode_reference(read(root, REFERENCE_FILE), str(root / REFERENCE_FILE)),
        model_path=root / MODEL_FILE,
        signed_by=signed_by,
        states=states,
    )


def _encode_json(document: Mapping[str, Any], name: str) -> bytes:
    try:
        return json.dumps(document, allow_nan=False, indent=1).encode("ascii") + b"\n"
    except (TypeError, ValueError) as error:
        raise BundleFormatError(f"{name}: expected values that JSON can hold, got {error}") from error
