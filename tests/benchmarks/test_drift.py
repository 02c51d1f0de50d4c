"""Injected drift and traffic like training's, in front of a real Prometheus with the shipped rules."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
import yaml

from benchmarks.reliability.drift import EXPECTED, NULL, drift_figures
from benchmarks.reliability.prometheus import RULES, hurried


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("prometheus") is None, reason="no prometheus on PATH")
def test_drift_fires_the_alerts_that_are_for_it_and_traffic_like_training_s_fires_none() -> None:
    kinds = (NULL, "field_missing")
    fired, figures = drift_figures(seconds=60, factor=360, rate=250, scrape_seconds=0.5, kinds=kinds, enough=True)
    assert fired[NULL] == set()
    assert fired["field_missing"] >= set(EXPECTED["field_missing"])
    assert (figures["drift_wrong_answers"], figures["drift_alerts_missed"], figures["drift_null_alerts"]) == (0, 0, 0)


def test_every_duration_of_the_rules_is_hurried_and_no_threshold() -> None:
    assert hurried("rate(a[15m]) > 15", 60) == "rate(a[15000ms]) > 15"
    assert hurried("  for: 1m\n  x: increase(b[6h])", 120) == "  for: 500ms\n  x: increase(b[180000ms])"
    rules = yaml.safe_load(hurried(RULES.read_text(encoding="utf-8"), 60))["groups"][0]["rules"]
    assert all(rule["for"].endswith("ms") for rule in rules)
    units = {unit for rule in rules for unit in re.findall(r"\[\d+([a-z]+)\]", rule["expr"])}
    assert units == {"ms"}
