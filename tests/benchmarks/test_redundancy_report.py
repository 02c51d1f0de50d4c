"""The report of both analyses: written from what was measured, and the control of noise as it is measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.redundancy.__main__ import summary
from benchmarks.redundancy.noise import noise_control
from benchmarks.redundancy.picture import draw
from benchmarks.redundancy.report import render
from training.structural.structure import Point, Structure

if TYPE_CHECKING:
    from pathlib import Path


def measured() -> dict[str, object]:
    points = (Point(1.0, 100, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), Point(0.4, 40, -0.0009, -0.002, 0.0, 0.0, 0.0, 0.0))
    layers = Structure((4, 8), 100, 50, 60, 0.75, 0.5, {"units": points}).as_json()
    fields = {
        "rows": 1000,
        "fields": [{"name": "a|d", "millibits": 12.5, "low_millibits": 10.0, "high_millibits": 15.25}],
        "interactions": [
            {
                "first": "a|d",
                "second": "b",
                "both_bits": 0.02,
                "beyond_better_bits": 0.001,
                "interaction_bits": -0.003,
                "low_bits": -0.004,
                "high_bits": -0.002,
                "p_value": 1e-9,
            }
        ],
        "clusters": [["a|d", "b"]],
        "carried": {"names": ["a|d", "b"], "information": [0.9, 1.0], "parameters": [0.2, 1.0], "text": "Of 2 fields."},
        "kinds": [{"kind": "weak", "names": ["b"], "fields": 0.5, "parameters": 0.8}],
        "selection": {},
        "measures": {},
    }
    return {"tasks": {"clicks": {"fields": fields, "layers": {"models": {"fused": layers}}}}, "noise": []}


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    content = measured()
    page = render(content)
    for words in (
        "a|d 12.5 (10.0 to 15.2)",
        "a\\|d × b | 20.0 | 1.0 | -3.0 | -4.0 to -2.0 | < 1e-6",
        "60% of 100 dense parameters can go",
        "0% with confidence",
        "| add less than 1% together | 1 | 50% | 80.0% | b |",
    ):
        assert words in page
    kept = json.loads(json.dumps(summary(content)))
    assert "measures" not in kept["tasks"]["clicks"]["fields"]
    assert Structure.from_json(kept["tasks"]["clicks"]["layers"]["fused"]).parameters == 100
    assert "before REACTION's methods had numbers" in page
    content["tasks"]["clicks"]["layers"] |= {"measured": "2026-11-29", "method": 6}
    assert "Measured on 2026-11-29, of method 6 of REACTION." in render(content)
    content["tasks"]["shows"] = {**content["tasks"]["clicks"], "layers": None}
    assert "### shows: fields" in render(content)
    assert "### shows: layers" not in render(content)
    draw(content["tasks"], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_noise_through_the_whole_of_afe_is_estimated_at_zero_and_dropped() -> None:
    found = [noise_control(seed, fields=20, rows=500) for seed in range(2)]
    assert max(abs(control["mean_bits"] / control["standard_error_bits"]) for control in found) < 2.6
    assert max(control["kept"] for control in found) <= 0.05
    assert np.mean([control["inside"] for control in found]) > 0.85
    assert min(control["plug_in_bits"] for control in found) > 0.05
    assert min(control["least_interaction_p"] for control in found) > 0.001
    assert "in standard errors" in render({"tasks": {}, "noise": found})
