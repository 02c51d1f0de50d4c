"""The doors of the accuracy benchmark: what they refuse, and what they say."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.accuracy import measure
from benchmarks.accuracy.__main__ import cli
from benchmarks.accuracy.ledger import Ledger, Line, run_key
from benchmarks.accuracy.plan import Want
from training.benchmark import BenchmarkUnavailableError, run_benchmark


def test_a_package_without_its_checkout_says_where_the_benchmark_is(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkUnavailableError, match="checkout"):
        run_benchmark([], package=tmp_path / "training")


def test_a_name_that_is_in_no_table_is_refused_with_the_names_that_are(tmp_path: Path) -> None:
    for option in ("--tasks", "--models"):
        outcome = CliRunner().invoke(cli, [option, "nonesuch", "--ledger", str(tmp_path / "ledger.jsonl")])
        assert outcome.exit_code == 2
        assert "nonesuch" in outcome.stderr
        assert "movielens_100k-random" in outcome.stderr or "FinalMLP" in outcome.stderr


def test_a_report_of_a_ledger_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    for option in ("--report-only", "--latency"):
        outcome = CliRunner().invoke(cli, [option, "--ledger", str(tmp_path / "nowhere" / "x.jsonl")])
        assert outcome.exit_code == 2
        assert "x.jsonl, got no file" in outcome.stderr
        assert not (tmp_path / "nowhere").exists()


def test_what_is_left_is_told_at_the_pace_that_was_seen(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    wants = [Want("criteo-random", "d", 100_000, model, trials=3, seeds=5) for model in ("DNN", "FM")]
    config = wants[0].search([]).configs[0]
    line = Line(
        key=run_key("criteo-random", "d", "DNN", "trial", config, seed=1),
        task="criteo-random",
        data="d",
        split="random",
        model="DNN",
        purpose="trial",
        config=config,
        seed=1,
        rows={},
        cpu_seconds=1800.0,
        created="2026-01-01T00:00:00Z",
        versions={},
    )
    ledger.append(line)
    told = measure.table(wants, ledger, jobs=2)
    assert "about 2.2 hours" in told  # 9 runs of half an hour over two processes: 2 trials, 2 of the best, 5 seeds
    assert "10 runs of cells of which none has been run" in told
