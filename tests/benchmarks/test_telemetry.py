"""What rounds of services with telemetry and without say of its cost."""

from __future__ import annotations

import numpy as np

from benchmarks.reliability.sections import SECTIONS
from benchmarks.reliability.telemetry import WAYS, WORKLOADS, Round, compared


def test_costs_are_those_of_one_round_each_whatever_else_slowed_a_round_down() -> None:
    slow = np.array([1.0, 0.5, 0.9, 0.7, 1.0])
    costs = dict(zip(WAYS, (0.0, 0.02, 0.05), strict=True))
    seen = {way: [Round(1000 * s * (1 - cost), 1e-3 / (1 - cost)) for s in slow] for way, cost in costs.items()}
    found = compared(seen, 1, np.random.default_rng(1))
    assert (found["telemetry_cost_ratio"], found["telemetry_recording_cost_ratio"]) == (0.02, 0.05)
    assert found["telemetry_cost_ratio_low"] == found["telemetry_cost_ratio_high"] == 0.02
    assert found["telemetry_cpu_ratio"] == round(1 / 0.98 - 1, 4)
    shown = {figure.key for section in SECTIONS for figure in section.figures}
    assert {*found, *compared(seen, 100, np.random.default_rng(1))} <= shown
    assert set(WORKLOADS) == {1, 100}
