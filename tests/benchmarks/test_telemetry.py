"""What rounds of services with telemetry and without say of its cost."""

from __future__ import annotations

import numpy as np

from benchmarks.reliability.sections import SECTIONS
from benchmarks.reliability.telemetry import WAYS, WORKLOADS, Round, alternated, compared


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
    drift = [(number % 2 == 1, 100, 0.1 * (1 + number / 100) / (1 - 0.02 * (number % 2)), 0.1) for number in range(31)]
    alternating = alternated(drift, 100, np.random.default_rng(1))
    assert set(alternating.values()) == {0.02}, "what slows all down bit by bit is no cost"
    assert set(alternating) <= shown
    assert set(WORKLOADS) == {1, 100}
