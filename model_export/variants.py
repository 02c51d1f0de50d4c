"""Graphs with smaller tables beside `model.onnx`: made, gated, timed, and kept only where they are worth it.

Gates, in order: the largest difference of a probability from the fusion form's, on golden and validation rows; AUC and
log loss on the run's validation sample, against those of `model.onnx`; then its bytes or its time, against each
precision that was kept before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from model_export.errors import PrecisionListError
from model_export.graph import save
from model_export.latency import interleaved_medians, session
from model_export.parity import exact_scores, graph_scores
from model_export.passes import TABLE_PASSES, apply_table_pass
from service.bundle import MODEL_FILE, PRECISIONS, VariantFacts
from training.metrics import MetricError, auc, log_loss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from onnxruntime import InferenceSession

    from model_export.fusion.tower import Float
    from model_export.graph import Graph
    from model_export.latency import Feed
    from model_export.parity import Reference, Rows
    from service.bundle import Precision, ReducedPrecision
    from training.runs import ValidationSample

ROWS: Final = (1, 100, 1000)
DECIDING_ROWS: Final = 100
FEEDS: Final = 16
# What the service's self-test lets pass, of what export saw: its machine may round otherwise.
HEADROOM: Final = 2.0


@dataclass(frozen=True)
class VariantGates:
    """What a variant must pass to be written.

    Attributes:
        parity: Largest difference of a probability from the fusion form's.
        auc: How far AUC may fall on the validation sample.
        log_loss: How far log loss may rise there, in nats.
        smaller: Worth keeping where it saves this share of the bytes of each precision kept before it ...
        faster: ... or this share of that one's time of a call with a hundred candidates.
    """

    parity: Mapping[ReducedPrecision, float] = field(default_factory=lambda: {"float16": 2e-3, "int8": 2e-2})
    auc: float = 2e-4
    log_loss: float = 2e-4
    smaller: float = 0.25
    faster: float = 0.05


@dataclass(frozen=True)
class Attempt:
    """One precision, kept or dropped.

    Attributes:
        precision: What the tables hold.
        kept: Whether the bundle has it.
        why: What decided.
        bytes: Of the graph and its tables.
        parity: Largest difference of a probability from the fusion form's.
        auc: On the validation sample; None where it has one class, or a gate failed before.
        log_loss: The same in nats.
        latency_us: Candidates to the median of a call; empty where a gate failed before.
    """

    precision: Precision
    kept: bool
    why: str
    bytes: int
    parity: float
    auc: float | None = None
    log_loss: float | None = None
    latency_us: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """What every precision is compared with.

    Attributes:
        reference: The fusion form.
        samples: Rows to compare; the last are those of the validation sample.
        validation: Their labels and weights.
        negative_sampling_rate: Undone for log loss: the labels are of the sampled rows.
        gates: What must be passed.
        tolerance: That of `model.onnx`.
    """

    reference: Reference
    samples: Sequence[Rows]
    validation: ValidationSample
    negative_sampling_rate: float
    gates: VariantGates
    tolerance: float


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """Precisions of a list with commas.

    Raises:
        PrecisionListError: A name that is none, or no name.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    if not names:
        raise PrecisionListError(f"--precisions: expected names of {', '.join(PRECISIONS)}, got none: {text!r}")
    if unknown := sorted(names - set(PRECISIONS)):
        raise PrecisionListError(f"--precisions: expected names of {', '.join(PRECISIONS)}, got {unknown[0]!r}")
    return tuple(precision for precision in PRECISIONS if precision in names)


def variant_file(precision: ReducedPrecision) -> str:
    """Name of a variant's graph in the bundle."""
    return MODEL_FILE.replace(".onnx", f".{precision}.onnx")


def write_variants(
    directory: Path,
    graph: Graph,
    precisions: Sequence[Precision],
    judge: Judge,
    *,
    external_above: int,
    seconds: float,
) -> tuple[Attempt, ...]:
    """Write the precisions that pass into a bundle in the making.

    Args:
        directory: Holds `model.onnx`, which passed the parity gate.
        graph: Its graph.
        precisions: Which to try.
        judge: What they must pass.
        external_above: Bytes of tables beyond which they are written beside the graph.
        seconds: Of timing in all.

    Returns:
        float32 and every precision tried, in the order of `TABLE_PASSES`.
    """
    wanted = [precision for precision in TABLE_PASSES if precision in precisions]
    if not wanted:
        return ()
    exact = [exact_scores(judge.reference, sample) for sample in judge.samples]
    paths: dict[Precision, Path] = {"float32": directory / MODEL_FILE}
    runners = {"float32": session(str(paths["float32"]))}
    attempts: dict[Precision, Attempt] = {}
    first = _scored(judge, "float32", runners["float32"], exact, paths["float32"])
    attempts["float32"] = replace(first, kept=True, why="always")
    for precision in wanted:
        path = paths[precision] = directory / variant_file(precision)
        save(apply_table_pass(graph, precision), path, external_above)
        runner = session(str(path))
        attempt = _gated(judge, _scored(judge, precision, runner, exact, path), first)
        attempts[precision] = attempt
        if attempt.kept:
            runners[precision] = runner
    for rows in ROWS if len(runners) > 1 else ():
        feeds = _feeds(judge.samples[-1], rows)
        turns = {name: (runner, feeds) for name, runner in runners.items()}
        for name, microseconds in interleaved_medians(turns, seconds=seconds / len(ROWS)).items():
            latency = {**attempts[name].latency_us, rows: microseconds}  # type: ignore[index]
            attempts[name] = replace(attempts[name], latency_us=latency)  # type: ignore[index]
    for number, precision in enumerate(wanted, 1):
        if attempts[precision].kept:
            before = [attempt for attempt in list(attempts.values())[:number] if attempt.kept]
            attempts[precision] = _weighed(judge.gates, attempts[precision], before)
        if not attempts[precision].kept:
            for file in _files(paths[precision]):
                file.unlink()
    return tuple(attempts.values())


def variant_facts(attempts: Sequence[Attempt], judge: Judge) -> dict[ReducedPrecision, VariantFacts]:
    """`variants` of the manifest."""
    facts: dict[ReducedPrecision, VariantFacts] = {}
    for attempt in attempts[1:]:
        precision, first = attempt.precision, attempts[0]
        if not attempt.kept or precision == "float32":
            continue
        assert attempt.auc is not None and attempt.log_loss is not None  # noqa: S101, PT018 - gated on both
        assert first.auc is not None and first.log_loss is not None  # noqa: S101, PT018
        facts[precision] = VariantFacts(
            file=variant_file(precision),
            tolerance=min(judge.gates.parity[precision], HEADROOM * attempt.parity + judge.tolerance),
            parity=attempt.parity,
            rows=sum(len(sample.training[1]) for sample in judge.samples),
            auc_change=attempt.auc - first.auc,
            log_loss_change=attempt.log_loss - first.log_loss,
            bytes=attempt.bytes,
            bytes_ratio=attempt.bytes / first.bytes,
            time_ratio={str(rows): us / first.latency_us[rows] for rows, us in attempt.latency_us.items()},
        )
    return facts


def _scored(judge: Judge, precision: Precision, runner: InferenceSession, exact: list[Float], path: Path) -> Attempt:
    """A precision with what its scores say."""
    found = [graph_scores(runner, sample) for sample in judge.samples]
    parity = max(_largest(ours, theirs) for ours, theirs in zip(found, exact, strict=True))
    attempt = Attempt(precision, kept=False, why="", bytes=sum(f.stat().st_size for f in _files(path)), parity=parity)
    if not np.isfinite(parity):
        return attempt
    pctr, rate = found[-1], judge.negative_sampling_rate
    sampled = pctr / (pctr + rate * (1.0 - pctr))
    label, weight = judge.validation.label, judge.validation.weight
    try:
        return replace(attempt, auc=auc(label, pctr, weight), log_loss=log_loss(label, sampled, weight))
    except MetricError:
        return attempt


def _gated(judge: Judge, attempt: Attempt, first: Attempt) -> Attempt:
    """The attempt, kept where its scores pass."""
    gates, most = judge.gates, judge.gates.parity[attempt.precision]  # type: ignore[index]
    if not attempt.parity <= most:
        return replace(attempt, why=f"a score is off by {attempt.parity:.2g}, more than {most:g}")
    if attempt.auc is None or attempt.log_loss is None or first.auc is None or first.log_loss is None:
        return replace(attempt, why="the validation sample has one class: AUC cannot be compared")
    if not first.auc - attempt.auc <= gates.auc:
        return replace(attempt, why=f"AUC falls by {first.auc - attempt.auc:.2g}, more than {gates.auc:g}")
    if not attempt.log_loss - first.log_loss <= gates.log_loss:
        risen = attempt.log_loss - first.log_loss
        return replace(attempt, why=f"log loss rises by {risen:.2g}, more than {gates.log_loss:g}")
    return replace(attempt, kept=True)


def _weighed(gates: VariantGates, attempt: Attempt, before: Sequence[Attempt]) -> Attempt:
    """The attempt, kept where it is smaller or faster than each that was kept before it, float32 first."""
    gains = []
    for other in before:
        size = attempt.bytes / other.bytes
        time = attempt.latency_us[DECIDING_ROWS] / other.latency_us[DECIDING_ROWS]
        smaller, faster = size <= 1.0 - gates.smaller, time <= 1.0 - gates.faster
        if not smaller and not faster:
            why = f"not {gates.smaller:.0%} smaller ({size:.2f}x) or {gates.faster:.0%} faster ({time:.2f}x)"
            return replace(attempt, kept=False, why=f"{why} than {other.precision}")
        words = [*([f"smaller ({size:.2f}x)"] if smaller else []), *([f"faster ({time:.2f}x)"] if faster else [])]
        gains.append(f"{' and '.join(words)} than {other.precision}")
    return replace(attempt, why=", ".join(gains))


def _largest(found: Float, exact: Float) -> float:
    """Largest difference; infinite where a score is not finite."""
    difference = np.abs(found - exact)
    return float(np.where(np.isfinite(difference), difference, np.inf).max(initial=0.0))


def _files(path: Path) -> list[Path]:
    """A graph and, where it has one, its data file."""
    return [file for file in (path, path.with_name(path.name + ".data")) if file.exists()]


def _feeds(sample: Rows, rows: int) -> list[Feed]:
    """Requests of one context and `rows` candidates, drawn from a sample."""
    generator = np.random.default_rng(0)
    context_ids, candidate_ids = sample.serving
    feeds = []
    for _ in range(FEEDS):
        drawn = generator.integers(0, len(candidate_ids), rows)
        feeds.append({"context_ids": context_ids[drawn[:1]], "candidate_ids": candidate_ids[drawn]})
    return feeds
