"""Latency side by side: calls, blocks and ratios; no test is decided by a timing."""

import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.accuracy.latency import EMPTY, Contestant, Load, empty_graph, race, ratio
from model_export.graph import OUTPUT
from model_export.latency import session

WIDTH = {"context_ids": 3, "candidate_ids": 2}


def test_an_empty_graph_takes_the_inputs_of_a_model_and_looks_at_none() -> None:
    runner = session(empty_graph(WIDTH))
    for rows in (1, 50):
        feed = {"context_ids": np.ones((1, 3), np.int32), "candidate_ids": np.ones((rows, 2), np.int32)}
        assert runner.run([OUTPUT], feed)[0].tolist() == [0.0]


def test_every_model_gets_the_same_calls_in_turns_with_one_context_row() -> None:
    seen: dict[str, list[tuple[int, ...]]] = {"one": [], "two": []}

    def contestant(name: str) -> Contestant:
        def feed(context: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
            seen[name].append((*context.shape, *rows.shape, int(context.sum()), int(rows.sum())))
            return {"context_ids": context, "candidate_ids": rows}

        return Contestant(session(empty_graph(WIDTH)), feed)

    generator = np.random.default_rng(0)
    ids = [generator.integers(0, 99, (40, width)).astype(np.int32) for width in WIDTH.values()]
    found = race({name: contestant(name) for name in seen}, *ids, seconds=0.02, sizes=(1, 100))
    assert seen["one"] == seen["two"]
    assert {shape[:4] for shape in seen["one"]} == {(1, 3, 1, 2), (1, 3, 100, 2)}
    assert set(found) == {"one", "two", EMPTY}
    for timings in found.values():
        assert set(timings) == {1, 100}
        for size, timing in timings.items():
            assert timing.calls == found["one"][size].calls >= 5
            assert timing.least <= timing.median
            assert len(timing.processor_blocks) == len(timing.blocks)
            assert min(timing.blocks) <= timing.median <= max(timing.blocks)


def test_a_ratio_is_of_what_is_left_without_the_empty_call() -> None:
    empty = np.array([10.0, 10.0, 30.0, 10.0])
    assert ratio(empty + 5, empty + 50, empty) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1))
    noisy = np.random.default_rng(1).normal(0, 4, (2, 20))
    value, low, high = ratio(60 + noisy[0], 110 + noisy[1], np.full(20, 10.0))
    assert low < value < high
    assert value == pytest.approx(0.5, abs=0.05)


def test_a_model_as_cheap_as_the_empty_call_makes_no_ratio_out_of_noise() -> None:
    assert ratio([9.0] * 3, [12.0] * 3, [10.0] * 3)[0] == pytest.approx(0.5)


def test_others_load_is_what_the_machine_did_but_for_us_as_a_share_of_its_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Wall, busy and own seconds before and after: of 10 seconds on four processors 12 were busy, 4 of them ours.
    readings = iter([(100.0, 50.0, 7.0), (110.0, 62.0, 11.0)])
    monkeypatch.setattr(Load, "_now", staticmethod(lambda: next(readings)))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    with Load() as load:
        pass
    assert load.others == pytest.approx(8 / 40)


def test_others_load_sees_a_process_that_is_not_ours() -> None:
    with Load() as load, subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            time.sleep(1.0)
        finally:
            other.kill()
    if math.isnan(load.others):
        pytest.skip("this system does not tell how busy its processors are")
    assert load.others * (os.cpu_count() or 1) > 0.2  # most of a processor, or its part of a busy one
