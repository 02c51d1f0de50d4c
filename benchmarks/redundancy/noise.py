"""A control: fields that are noise, from few values to one a row, through the whole of AFE."""

from __future__ import annotations

import time

import numpy as np

from training.afe import measure, select
from training.field_selection.field_views import MeasuredSlot

FIELDS = 200
ROWS = 2000
FEWEST_VALUES = 10
RATE = 0.25


def noise_control(seed: int, fields: int = FIELDS, rows: int = ROWS) -> dict[str, float]:
    """Measure and select independent noise fields.

    Args:
        seed: of values and labels.
        fields: how many, with 10 to `rows` values each.
        rows: of the log.

    Returns:
        The mean estimate and its standard error (bits), the mean of the plug-in estimate, the share of fields kept, of
        intervals that hold 0, the least p-value of an interaction, and seconds.
    """
    rng = np.random.default_rng([2026, seed])
    sizes = np.geomspace(FEWEST_VALUES, rows, fields).astype(int)
    ids = np.stack([rng.integers(0, size, rows) for size in sizes], 1).astype(np.int32)
    label = (rng.random(rows) < RATE).astype(np.uint8)
    slots = [MeasuredSlot(f"noise {place}", "candidate", place, 1, int(size)) for place, size in enumerate(sizes)]
    started = time.monotonic()
    measures = measure(np.zeros((rows, 0), np.int32), ids, label, slots)
    selection = select(measures)
    estimates = np.array([field.information_bits for field in measures.fields])
    inside = [(field.low_bits or 0.0) <= 0.0 <= (field.high_bits or 0.0) for field in measures.fields]
    return {
        "seed": seed,
        "fields": fields,
        "rows": rows,
        "mean_bits": float(estimates.mean()),
        "standard_error_bits": float(estimates.std(ddof=1) / fields**0.5),
        "plug_in_bits": float(np.mean([field.plug_in_bits for field in measures.fields])),
        "kept": len(selection.kept) / fields,
        "inside": float(np.mean(inside)),
        "least_interaction_p": min((pair.p_value for pair in measures.interactions), default=1.0),
        "seconds": time.monotonic() - started,
    }
