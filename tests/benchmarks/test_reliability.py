"""Short profiles of the long trials: outcomes, never times; and the page that is written from their figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.reliability.feedback import feedback_figures
from benchmarks.reliability.page import FIGURES, PAGE, page, publish
from benchmarks.reliability.reload import reload_figures
from benchmarks.reliability.restart import BALANCERS, found, restart_figures
from benchmarks.reliability.sections import SECTIONS
from benchmarks.reliability.shadow import shadow_figures
from benchmarks.reliability.soak import soak_figures
from service.counts.model_counts import _REQUESTS_QUEUED

ROOT = Path(__file__).parents[2]
needs_processes = pytest.mark.skipif(sys.platform != "linux", reason="several processes on one socket")


@needs_processes
def test_swaps_under_load_lose_and_mix_nothing_and_leave_nothing_open() -> None:
    figures = reload_figures(
        swaps=3, rate=50, steady_seconds=0.3, stranger_seconds=0.1, values=200_000, patience_seconds=1
    )
    assert (figures["reload_swaps"], figures["reload_requests"] > 50) == (3, True)
    assert figures["reload_failed_requests"] == figures["reload_mixed_answers"] == 0
    assert figures["reload_descriptor_growth"] == 0


@needs_processes
def test_a_rolling_restart_behind_a_real_balancer_loses_nothing() -> None:
    installed = [name for name in BALANCERS if is_installed(name)]
    if not installed:
        pytest.skip(f"none of {BALANCERS} is installed")
    figures = restart_figures(balancer=installed[0], rounds=1, rate=50)
    assert (figures["rolling_restarts"], figures["rolling_restart_requests"] > 50) == (2, True)
    assert figures["rolling_restart_failed_requests"] == figures["rolling_restart_wrong_answers"] == 0


@needs_processes
def test_no_kind_of_shadow_changes_an_answer() -> None:
    figures = shadow_figures(rounds=1, rate=100, seconds=0.5)
    assert (figures["shadow_failed_requests"], figures["shadow_wrong_answers"]) == (0, 0)
    assert min(figures["shadow_requests"], figures["shadow_scored"]) > 50


@needs_processes
def test_a_short_soak_loses_and_mixes_nothing_and_counts_every_answer() -> None:
    figures, findings = soak_figures(seconds=12, rate=60, swap_seconds=1, kill_seconds=1.5)
    assert figures["soak_requests"] > 400
    assert min(figures[f"soak_{what}"] for what in ("kills", "swaps", "spoilt", "slow_clients", "probes")) > 0
    nothing = ("wrong_answers", "lost_answers", "5xx", "slow_clients_left", "probes_failed")
    assert {what: figures[f"soak_{what}"] for what in nothing} == dict.fromkeys(nothing, 0), findings
    assert figures["soak_ended_badly"] == 0
    assert figures["soak_uncounted_answers"] <= _REQUESTS_QUEUED * figures["soak_kills"]


@needs_processes
def test_two_replicas_together_count_every_event_once_and_no_window_too_early(tmp_path: Path) -> None:
    figures = feedback_figures(tmp_path, rankings=60, window_seconds=3, workers=1)
    assert figures["feedback_impressions"] == 300
    assert min(figures[f"feedback_{what}"] for what in ("clicks", "repeated", "forged", "late")) > 0
    assert figures["feedback_miscounted"] == figures["feedback_negatives_too_early"] == 0
    assert max(figures["feedback_log_loss_error"], figures["feedback_calibration_error"]) < 1e-6


def is_installed(balancer: str) -> bool:
    try:
        return bool(found(balancer))
    except FileNotFoundError:
        return False


def test_the_page_shows_what_was_measured_and_whether_it_is_what_was_promised(tmp_path: Path) -> None:
    publish({"reload_swaps": 100, "reload_p99_ratio": 1.1}, tmp_path / "page.json")
    publish({"reload_failed_requests": 2}, tmp_path / "page.json")
    text = (tmp_path / "PAGE.md").read_text()
    assert "| ratio of the two | 1.1 | at most 1.2 | yes |" in text
    assert "| requests without scores | 2 | 0 | **no** |" in text
    assert "| swaps | 100 |  |  |" in text
    assert "Rolling restart" not in text, "not measured"
    assert json.loads((tmp_path / "page.json").read_text()) == {
        "reload_swaps": 100, "reload_p99_ratio": 1.1, "reload_failed_requests": 2,
    }  # fmt: skip


@pytest.mark.skipif(not FIGURES.exists(), reason="nothing was measured yet")
def test_the_page_in_the_repository_is_what_its_figures_say_and_no_figure_is_left_out() -> None:
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(figures)
    shown = [figure.key for section in SECTIONS for figure in section.figures]
    assert len(shown) == len(set(shown))
    assert set(figures) <= set(shown)
