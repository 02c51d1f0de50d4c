"""What the bench of large tables does, at a size for every day: tables beside their graphs, a packed vocabulary."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import bench_look_ups
import bench_tables
import pytest

from service.bundle import read_bundle
from service.features import Vocabulary
from service.scorer import Scorer

TOKENS = 140_000  # more than a dictionary is built for
DIM = 32


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "encoder"
    assert bench_tables.fit_step(folder, TOKENS)["bytes"] > 14 * TOKENS
    return folder


@pytest.fixture(scope="module")
def large(encoder: Path) -> Path:
    run, out = encoder.with_name("run"), encoder.with_name("bundle")
    bench_tables.run_step(encoder, run, TOKENS, DIM)
    exported = bench_tables.export_step(run, out)
    assert exported["tables"] > 4 * TOKENS * DIM
    return out


def test_a_large_vocabulary_is_looked_up_in_its_mapped_file(encoder: Path, large: Path) -> None:
    times = bench_tables.open_step(encoder, TOKENS)["times"]
    assert set(times) == {f"{kind}, {count}" for kind in ("uniform", "zipf") for count in (1, 100, 1000)}
    vocabulary = read_bundle(large).encoder.vocabulary("user")
    assert isinstance(vocabulary, Vocabulary)
    assert vocabulary.packed
    assert len(vocabulary) == TOKENS + 2


def test_every_precision_has_its_tables_beside_its_graph_and_starts_without_copying_them(large: Path) -> None:
    bundle = read_bundle(large)
    sizes = {
        name: path.path.with_name(f"{path.path.name}.data").stat().st_size for name, path in bundle.variants.items()
    }
    assert sizes["float16"] == pytest.approx(sizes["float32"] / 2, rel=0.05)
    assert sizes["int8"] == pytest.approx(sizes["float32"] * (DIM + 4) / (4 * DIM), rel=0.2)  # each starts on 64 KiB
    Scorer(bundle)  # what a first session costs by itself
    for precision, size in sizes.items():
        before = bench_tables.memory()["private"]
        scorer = Scorer(bundle, precision=precision)
        scorer.self_test()
        grown = bench_tables.memory()["private"] - before
        assert grown < size / 2 / bench_tables.MIB, precision


def test_a_start_is_measured_in_its_parts(large: Path) -> None:
    for precision in ("float32", "float16", "int8"):
        found = bench_tables.start_step(large, precision)
        assert found["difference"] <= read_bundle(large).variant(precision).tolerance
        assert set(found["times"]) == {"1", "100", "1000"}


def test_look_ups_in_every_form_of_a_table_are_timed_and_agree() -> None:
    found = bench_look_ups.measure(1000, 8, folded=False, seconds=0.01)
    assert list(found) == ["float32", "float16", "int8", "int8, Mul", "int8, block"]
    assert all(set(times) == {1, 100, 1000} for times in found.values())


def test_the_bench_says_so_where_there_is_too_little_room(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.model_export.bench_tables",
            "--scale",
            "1e6",
            "--only",
            "tables",
            "--dir",
            tmp_path,
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "GiB free for the files, got" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_readme_says_what_disk_and_memory_the_whole_bench_takes() -> None:
    readme = (bench_tables.ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"it needs (\d+) GiB of disk and (\d+) GiB of private memory", readme)
    assert found is not None
    table = 4 * bench_tables.TOKENS * 64 / bench_tables.GIB
    for said, copies in zip(found.groups(), (bench_tables.TABLE_COPIES, bench_tables.PRIVATE_COPIES), strict=True):
        assert int(said) - 1 < copies * table <= int(said) + 0.05
