"""How often a calibration is kept, and what it does to fresh rows: `python -m tests.training.bench_calibration`.

Made-up logs whose true logits are known: right ones, flattened ones, and bent ones, at several margins.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from training.calibrating import choose, losses
from training.calibration import CalibrationConfig, probability
from training.console import show, text_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ROWS, FRESH = 8_000, 40_000

LOGS: dict[str, Callable[[Floats], Floats]] = {
    "right": lambda z: z,
    "slope 0.95": lambda z: 0.95 * z,
    "slope 0.9": lambda z: 0.9 * z,
    "bent": lambda z: np.where(z > -1.5, 0.7 * (z + 1.5), 1.3 * (z + 1.5)) - 1.5,
}


def made(seed: int, rows: int, done: Callable[[Floats], Floats]) -> tuple[Floats, Floats]:
    """Logits after something was done to them, and labels drawn by the true ones."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(-1.5, 1.5, rows)
    return done(truth), (generator.random(rows) < probability(truth)).astype(np.float64)


def main(logs: Annotated[int, typer.Option(min=1, help="of each kind")] = 60) -> None:
    """Print, for each kind of log and margin, what was chosen and how the log loss of fresh rows changed."""
    lines = []
    for errors in (0.0, 1.0, 2.0):
        for name, done in LOGS.items():
            kinds: Counter[str] = Counter()
            changes = []
            for seed in range(logs):
                found = choose(CalibrationConfig(errors=errors), *made(seed, ROWS, done), seed=seed).calibration
                fresh, label = made(logs + seed, FRESH, done)
                kinds[found.kind] += 1
                changes.append(float(np.mean(losses(found(fresh), label) - losses(fresh, label))))
            counts = [str(kinds[kind]) for kind in ("identity", "affine", "piecewise")]
            lines.append([name, f"{errors:g}", *counts, f"{np.mean(changes):+.1e}", f"{max(changes):+.1e}"])
    columns = ["log", "errors", "identity", "affine", "piecewise", "mean change", "worst"]
    show(
        text_table(f"Kept of {logs} logs each, {ROWS:,} validation rows; log loss of {FRESH:,} others", columns, lines)
    )


if __name__ == "__main__":
    typer.run(main)
