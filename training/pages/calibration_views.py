"""Calibration as the report and the terminal show it: before and after, and whether each value gets what it clicks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from service.features import HashedVocabulary
from training.calibration import probability
from training.metrics import calibration_curve
from training.pages.charts import Bar, bar_chart, reliability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup
    from numpy.typing import NDArray

    from service.features import FeatureEncoder, Vocabulary
    from training.calibration import Calibration
    from training.runs import Run, ValidationSample

    Floats = NDArray[np.float64]

SCORE_BINS: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)

VALUES_A_FIELD: Final = 5
FEWEST_ROWS: Final = 100
SHOWN_VALUES: Final = 25
NORMAL_95: Final = 1.96
SPECIAL: Final = ("(missing)", "(out of vocabulary)")
"""Names of the ids below a field's first token."""


@dataclass(frozen=True)
class ValueRatio:
    """What is predicted for the rows with one value of a field, over what is observed there.

    Attributes:
        field: Its field.
        value: The value.
        rows: Rows that have it.
        predicted: Mean probability.
        observed: Share of clicks.
        ratio: Predicted over observed; infinite where nobody clicked.
        low: End of its 95% interval.
        high: The other end.
    """

    field: str
    value: str
    rows: int
    predicted: float
    observed: float
    ratio: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        """For `metrics.json`: no number where there is none (JSON has no infinity)."""
        return {key: None if value == float("inf") else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ValueRatio:
        """What `as_json` gave."""
        values: dict[str, Any] = {key: float("inf") if value is None else value for key, value in content.items()}
        return cls(**values)

    @property
    def fits(self) -> bool:
        """Whether the interval holds 1."""
        return self.low <= 1.0 <= self.high


class Scored(Protocol):
    """Rows of encoded ids, with labels and maybe weights."""

    @property
    def context_ids(self) -> NDArray[np.int32]: ...  # noqa: D102
    @property
    def candidate_ids(self) -> NDArray[np.int32]: ...  # noqa: D102
    @property
    def label(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def weight(self) -> NDArray[np.float32] | None: ...  # noqa: D102


def value_ratios(
    sample: Scored, pctr: Floats, encoder: FeatureEncoder, fields: Sequence[str] | None = None
) -> list[ValueRatio]:
    """Predicted over observed for the most frequent values of fields.

    Args:
        sample: The rows.
        pctr: (N,) probabilities that are judged.
        encoder: Names the ids.
        fields: Which of its fields; None for all, those that the model does not read as well: it may be wrong there.

    Returns:
        At most `VALUES_A_FIELD` a field, of at least `FEWEST_ROWS` rows each.
    """
    weight = np.ones(len(pctr)) if sample.weight is None else sample.weight.astype(np.float64)
    found = []
    for side, ids in (("context", sample.context_ids), ("candidate", sample.candidate_ids)):
        for column in encoder.columns(side):  # type: ignore[arg-type]
            if fields is not None and column.name not in fields:
                continue
            own = ids[:, column.first : column.first + column.width]
            reserved, vocabulary = encoder.field(column.name).reserved, encoder.vocabulary(column.name)
            counts = np.bincount(own.ravel(), minlength=reserved)
            counts[2:reserved] = 0  # pads are no value
            for number in np.argsort(-counts, kind="stable")[:VALUES_A_FIELD].tolist():
                rows = (own == number).any(axis=1)
                if counts[number] and rows.sum() >= FEWEST_ROWS:
                    name = SPECIAL[number] if number < reserved else _token(vocabulary, number, reserved)
                    found.append(_ratio(column.name, name, sample.label[rows], pctr[rows], weight[rows]))
    return found


def _token(vocabulary: Vocabulary | HashedVocabulary, number: int, reserved: int) -> str:
    if isinstance(vocabulary, HashedVocabulary):
        return f"hashed to {number}"
    return (
        vocabulary.content().token(number - reserved) if vocabulary.packed else vocabulary.tokens()[number - reserved]
    )


def _ratio(field: str, value: str, label: NDArray[np.uint8], pctr: Floats, weight: Floats) -> ValueRatio:
    mass = weight.sum()
    if not mass > 0:
        return ValueRatio(field, value, len(label), 0.0, 0.0, float("inf"), 0.0, float("inf"))
    predicted, observed = float(weight @ pctr / mass), float(weight @ label / mass)
    low, high = wilson(observed, float(mass * mass / (weight @ weight)))
    return ValueRatio(
        field,
        value,
        len(label),
        predicted,
        observed,
        _over(predicted, observed),
        predicted / high,
        _over(predicted, low),
    )


def _over(predicted: float, observed: float) -> float:
    return predicted / observed if observed > 0 else float("inf")


def wilson(share: float, rows: float) -> tuple[float, float]:
    """95% interval of a share (Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927).

    Args:
        share: The share that was seen.
        rows: How many rows it was seen on; of weighted rows, their effective number.
    """
    z2 = NORMAL_95 * NORMAL_95
    middle = (share + z2 / (2.0 * rows)) / (1.0 + z2 / rows)
    half = NORMAL_95 * np.sqrt(share * (1.0 - share) / rows + z2 / (4.0 * rows * rows)) / (1.0 + z2 / rows)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def calibration_part(run: Run) -> dict[str, Any]:
    """What the report's section shows; values of all fields that were encoded, whether the model reads them or not."""
    sample, calibration = run.validation(), run.calibration
    served = served_probabilities(sample.pctr, calibration)
    counts, _ = np.histogram(served, bins=np.asarray(SCORE_BINS))
    shares = counts / max(int(counts.sum()), 1)
    bars = [
        Bar(f"{low:g} to {high:g}", (float(part),), (f"{part:.1%}",))
        for low, high, part in zip(SCORE_BINS, SCORE_BINS[1:], shares, strict=False)
    ]
    tests = [ValueRatio.from_json(one) for one in run.metrics.get("test_ratios", ())]
    changed = calibration.kind != "identity"
    return {
        "calibration": _curve(sample, served),
        "uncalibrated": _curve(sample, sample.pctr.astype(np.float64)) if changed else None,
        "scores": bar_chart(bars, title="Share of rows by score", width=460),
        "calibration_said": calibration_sentence(run.metrics),
        "calibration_about": (
            f"{len(sample.label):,} rows of the validation split in bins of equal weight. On the dashed line a score "
            "of 0.1 means one click in ten; the larger a dot, the more rows it stands for."
            + (" The calibration was fitted on these rows; the test split says what it is worth." if changed else "")
        ),
        "ratios": [
            _ratios_part(value_ratios(sample, served, run.encoder), "validation"),
            *([_ratios_part(tests, "test")] if "test_ratios" in run.metrics else []),
        ],
    }


def _ratios_part(ratios: Sequence[ValueRatio], split: str) -> dict[str, Any]:
    about = (
        f"Predicted over observed for the most frequent values of each field on the {split} split: "
        f"of {len(ratios)} values with {FEWEST_ROWS} rows or more, the 95% intervals of "
        f"{sum(ratio.fits for ratio in ratios)} hold 1. The farthest off first."
    )
    if not ratios:
        about = f"No value of any field has {FEWEST_ROWS} rows on the {split} split: too few to say anything."
    return {
        "about": about,
        "rows": [
            {
                "field": ratio.field,
                "value": ratio.value,
                "rows": f"{ratio.rows:,}",
                "predicted": f"{ratio.predicted:.4f}",
                "observed": f"{ratio.observed:.4f}",
                "ratio": f"{ratio.ratio:.3f}",
                "interval": f"{ratio.low:.3f} to {ratio.high:.3f}",
                "fits": ratio.fits,
            }
            for ratio in sorted(ratios, key=_distance, reverse=True)[:SHOWN_VALUES]
        ],
    }


def _distance(ratio: ValueRatio) -> float:
    """How far 1 lies outside the interval, or how near its end, by the logarithm."""
    with np.errstate(divide="ignore"):
        return float(max(np.log(ratio.low), -np.log(ratio.high)))


def _curve(sample: ValidationSample, pctr: Floats) -> Markup:
    curve = calibration_curve(sample.label, pctr, sample.weight)
    share = curve.weight / curve.weight.sum()
    points = list(zip(curve.predicted.tolist(), curve.observed.tolist(), share.tolist(), strict=True))
    return reliability(points, title="Observed against predicted rate")


def served_probabilities(pctr: NDArray[np.float32], calibration: Calibration) -> Floats:
    """Calibrated probabilities of uncalibrated ones; a correction for sampled negatives is left out."""
    p = np.clip(pctr.astype(np.float64), 1e-12, 1.0 - 1e-12)
    return probability(calibration(np.log(p) - np.log1p(-p)))


def calibration_sentence(metrics: Mapping[str, Any]) -> str:
    """What calibrating did, and what it did on test; "" for a run from before there was such a thing."""
    found = metrics.get("calibration")
    if found is None:
        return ""
    tried = {name: f"{one['gain']:+.1e} ± {one['error']:.1e}" for name, one in found["candidates"].items()}
    gains = ", ".join(f"{name} {gain}" for name, gain in tried.items())
    said = (
        f"Calibration: {found['kind']}; cross-fitted gain of validation log loss: {gains}"
        if tried
        else (f"Calibration: {found['kind']}; {found['why']}")
    )
    before, after = (metrics.get("test", {}).get(name) for name in ("fused", "calibrated"))
    if before is None or after is None:
        return f"{said}."
    effect = ", ".join(f"{word} {before[key]:.4f} to {after[key]:.4f}" for key, word in _EFFECT.items())
    return f"{said}. On test: {effect}."


_EFFECT: Final = {"log_loss": "log loss", "ece": "ECE"}
