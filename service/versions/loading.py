"""A bundle becomes a model that may be served: read, checked, and its golden rows scored."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from service.bundle import PublicKeys, read_bundle
from service.scorer import Scorer

if TYPE_CHECKING:
    from pathlib import Path

    from service.bundle import Precision
    from service.scorer import SelfTestReport

__all__ = ["LoadedModel", "load_model"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checked model, not yet served.

    Attributes:
        scorer: Raw values to scores.
        report: What the self-test saw.
        seconds: How long it all took.
    """

    scorer: Scorer
    report: SelfTestReport
    seconds: float


def load_model(
    path: Path,
    *,
    threads: int,
    precision: Precision = "float32",
    manifest_sha256: str | None = None,
    keys_file: Path | None = None,
) -> LoadedModel:
    """Read a bundle and check it: digests, formats, graph, golden rows.

    Args:
        path: Directory of the bundle.
        threads: Threads of one ONNX Runtime call.
        precision: What the model's tables hold.
        manifest_sha256: Which bundle it must be; None for any.
        keys_file: Public keys of which one must have signed it; None asks for no signature.

    Raises:
        BundleError: No bundle, or not the one that was written.
        ScorerError: The golden rows do not get their ids or scores.
    """
    began = perf_counter()
    keys = None if keys_file is None else PublicKeys.read(keys_file)
    bundle = read_bundle(path, manifest_sha256=manifest_sha256, keys=keys)
    scorer = Scorer(bundle, threads=threads, precision=precision)
    report = scorer.self_test()
    return LoadedModel(scorer, report, perf_counter() - began)
