"""From a raw file to scores over HTTP, through the four commands, on real logs and on an advertiser's own table.

What is expected is computed apart from the serving path: raw rows are encoded one value at a time, and scored in
float64 by the fusion form (never the fused model) that the run holds.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import lzma
import math
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model_export.__main__ import app as model_export
from service.bundle import read_bundle
from service.scorer import Scorer
from tests.service.serving import serving
from training.__main__ import app as training
from training.runs import open_run, read_jsonl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "training" / "experiments"
TOLERANCE = 1e-6
# The path is what is tested here, not what a long training reaches.
BRIEF = (
    "epochs = 1\nevaluations = 1\npatience = 1\ntable_l2 = 300.0\nhalf_scale_at = 0.0\n\n"
    '[afe]\nshare_below = 10.0\n\n[dtf]\ncouncil = 0\nfusion_start = "towers"\n'
)
ROWS = 8_000
"""Of a real log."""


def command(*words: object) -> None:
    """Run one of the project's commands, in this environment."""
    line = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def command_here(package: str, *words: object) -> None:
    """The same without starting a process: libraries take longer to load than a brief training."""
    done = CliRunner().invoke({"training": training, "model_export": model_export}[package], [*map(str, words)])
    assert done.exit_code == 0, f"{words}\n{done.output[-4000:]}\n{done.exception!r}"


@dataclass(frozen=True)
class Path4:
    """What the four commands left."""

    run: Path
    bundle: Path
    rows: list[dict[str, Any]]


def walk(experiment: Path, directory: Path, run: Callable[..., None]) -> Path4:
    """The three commands before the service."""
    run("training", "prepare", experiment, "--out", directory / "data")
    run("training", "train", experiment, "--data", directory / "data", "--out", directory / "run")
    run("model_export", directory / "run", "--out", directory / "bundle", "--seconds", 0.2)
    rows = read_jsonl(directory / "data" / "raw_sample.jsonl")
    assert len(rows) >= 100
    return Path4(directory / "run", directory / "bundle", rows)


class Expected:
    """Scores of raw rows by the run's fusion form in float64, calibrated, each value encoded by itself."""

    def __init__(self, run_directory: Path, rate: float = 1.0) -> None:
        run = open_run(run_directory)
        self.encoder, self.form = run.encoder, run.form().double().eval().serving()
        self.calibration = json.loads((run_directory / "calibration.json").read_text(encoding="utf-8"))
        self.shift = math.log(rate)

    def ids(self, side: str, rows: Sequence[Mapping[str, object]]) -> torch.Tensor:
        out = [
            [
                int(value)
                for piece in self.encoder.columns(side)  # type: ignore[arg-type]
                for value in self.encoder.encode_values(piece.name, [row.get(piece.name)])[0]
            ]
            for row in rows
        ]
        return torch.tensor(out, dtype=torch.int64).reshape(len(rows), -1)

    def __call__(
        self, contexts: Sequence[Mapping[str, object]], candidates: Sequence[Mapping[str, object]]
    ) -> list[float]:
        with torch.no_grad():
            logit = self.form(self.ids("context", contexts), self.ids("candidate", candidates))
        return torch.sigmoid(self.calibrated(logit) + self.shift).tolist()

    def calibrated(self, logit: torch.Tensor) -> torch.Tensor:
        """Follow the pieces from the first knot outwards."""
        slopes, knots, offset = (self.calibration[key] for key in ("slopes", "knots", "offset"))
        if not knots:
            return offset + slopes[0] * logit
        value = offset + slopes[0] * (logit - knots[0]).clamp(max=0.0)
        for slope, low, high in zip(slopes[1:], knots, [*knots[1:], math.inf], strict=True):
            value = value + slope * (logit.clamp(low, high) - low)
        return value


def assert_scores_agree(path: Path4, rate: float = 1.0) -> None:
    """Serve the bundle, and ask it through every form for the scores of raw rows."""
    expected = Expected(path.run, rate)
    trained_only = {field.name for field in expected.encoder.fields if field.training_only}

    def served(row: Mapping[str, Any], side: str) -> dict[str, Any]:
        return {name: value for name, value in row[side].items() if name not in trained_only}

    sample = path.rows[:60]
    contexts = [served(row, "context") for row in sample]
    candidates = [served(row, "candidate") for row in sample]
    names = sorted({name for row in candidates for name in row})
    everything = [context | candidate for context, candidate in zip(contexts, candidates, strict=True)]
    all_names = sorted({name for row in everything for name in row})
    one_context = [contexts[0]] * len(sample)
    wanted_ranking = expected(one_context, candidates)
    wanted_pointwise = expected(contexts, candidates)
    assert len(set(wanted_pointwise)) > 10, "the model scores all rows alike: nothing is tested"
    bodies = {
        "rows": ({"context": contexts[0], "candidates": candidates}, wanted_ranking),
        "columns": (
            {"context": contexts[0], "candidates": {name: [row.get(name) for row in candidates] for name in names}},
            wanted_ranking,
        ),
        "pointwise rows": ({"candidates": everything}, wanted_pointwise),
        "pointwise columns": (
            {"candidates": {name: [row.get(name) for row in everything] for name in all_names}},
            wanted_pointwise,
        ),
    }
    if not contexts[0]:
        bodies = {name: body for name, body in bodies.items() if name.startswith("pointwise")}
    with serving(path.bundle) as server, httpx.Client(base_url=server.url) as client:
        for form, (body, wanted) in bodies.items():
            answer = client.post("/score", json=body)
            assert answer.status_code == 200, f"{form}: {answer.text}"
            np.testing.assert_allclose(answer.json()["scores"], wanted, rtol=0, atol=TOLERANCE, err_msg=form)
            packed = client.post(
                "/score", content=msgspec.msgpack.encode(body), headers={"content-type": "application/msgpack"}
            )
            assert msgspec.msgpack.decode(packed.content)["scores"] == np.float32(answer.json()["scores"]).tolist(), (
                form
            )
        alone = [
            client.post("/score", json={"context": context, "candidates": [candidate]}).json()["scores"][0]
            for context, candidate in zip(contexts, candidates, strict=True)
        ]
        np.testing.assert_allclose(alone, wanted_pointwise, rtol=0, atol=TOLERANCE)


def published(name: str, directory: Path) -> Path:
    """A published experiment, cut to one epoch a phase."""
    text = (EXPERIMENTS / f"{name}.toml").read_text(encoding="utf-8")
    assert "[train]" not in text, f"{name}.toml has settings of its own"
    path = directory / f"{name}.toml"
    path.write_text(f"{text}\n[train]\n{BRIEF}", encoding="utf-8")
    return path


def beginning(data_dir: Path, name: str, into: Path) -> None:
    """The first rows of a real log in its own format, and all that lies beside it; a log of few rows is whole."""
    place, files = into / name, {path.name: path for path in (data_dir / name).iterdir()}
    place.mkdir(parents=True)
    for packed, unpack in (("train.tsv.xz", lzma.open), ("train.csv.gz", gzip.open)):
        if packed in files:
            with unpack(files.pop(packed), "rt", encoding="utf-8") as log:
                (place / Path(packed).stem).write_text("".join(itertools.islice(log, ROWS)), encoding="utf-8")
    if "u.data" in files:
        lines = files.pop("u.data").read_text(encoding="utf-8").splitlines(keepends=True)
        (place / "u.data").write_text("".join(lines[:ROWS]), encoding="utf-8")
    for path in files.values():
        shutil.copyfile(path, place / path.name)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["criteo", "avazu", "movielens_100k"])
def test_a_real_log_goes_from_its_raw_file_to_equal_scores_over_http(
    name: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginning(data_dir, name, tmp_path / "raw")
    monkeypatch.setenv("REACTION_DATA_DIR", str(tmp_path / "raw"))
    path = walk(published(name, tmp_path), tmp_path, command_here)
    assert_scores_agree(path)
    metrics = json.loads((path.run / "metrics.json").read_text(encoding="utf-8"))
    for split in ("validation", "test"):
        # One epoch is enough to be far from chance on every one of these sets.
        assert 0.6 < metrics[split]["fused"]["auc"] < 0.9
        assert {"tower_a", "tower_b", "pair"} <= metrics[split].keys()


RATE = 0.25
OWN_TABLE = f"""
format = 1
name = "own"
seed = 3

[data]
dataset = "table"
path = "log.csv"
split = {{ kind = "random", by = "request" }}
negative_sampling_rate = {RATE}

[data.table]
label = "click"
weight = "importance"
group = "request"

[[data.fields]]
name = "user"
kind = "categorical"
side = "context"

[[data.fields]]
name = "hour"
kind = "numeric"
side = "context"
edges = [6.0, 12.0, 18.0]

[[data.fields]]
name = "ad"
kind = "categorical"
side = "candidate"

[[data.fields]]
name = "price"
kind = "numeric"
side = "candidate"
buckets = 8

[[data.fields]]
name = "tags"
kind = "multi_valued"
side = "candidate"
max_values = 3
pooling = "mean"

[[data.fields]]
name = "words"
kind = "multi_valued"
side = "candidate"
max_values = 2
pooling = "sum"

[[data.fields]]
name = "position"
kind = "categorical"
side = "candidate"
serving_constant = "1"

[[data.fields]]
name = "session"
kind = "categorical"
side = "context"
hash_buckets = 64

[train]
batch_size = 256
{BRIEF}"""


def write_log(path: Path, rows: int = 6000) -> None:
    """A log in which clicks depend on every field, positions on what was shown, and one request holds four rows."""
    draw = random.Random(11)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(
            ["click", "importance", "request", "user", "hour", "ad", "price", "tags", "words", "position", "session"]
        )
        for row in range(rows):
            request = row // 4
            shared = random.Random(request)
            user, hour, session = shared.randrange(40), shared.randrange(24), shared.randrange(500)
            ad, price, position = draw.randrange(30), round(draw.lognormvariate(0, 1), 3), row % 4 + 1
            tags = draw.sample(["red", "blüe", "x,y", 'q"t', "new\nline"], draw.randrange(4))
            words = draw.sample(["a", "b", "c", "d"], draw.randrange(3))
            logit = -1 + 0.8 * (user % 3) - 0.5 * (ad % 4) + 0.3 * ("red" in tags) - 0.4 * position + 0.2 * (hour > 12)
            click = int(draw.random() < 1 / (1 + math.exp(-logit)))
            out.writerow(
                [click, draw.choice([0.5, 1, 2]), request, f"u{user:03}", hour if row % 9 else "", ad, price,
                 "|".join(tags), "|".join(words), position, f"s{session}"]
            )  # fmt: skip


@pytest.fixture(scope="module")
def own_table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path4]:
    directory = tmp_path_factory.mktemp("own")
    write_log(directory / "log.csv")
    experiment = directory / "own.toml"
    experiment.write_text(OWN_TABLE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REACTION_DATA_DIR", raising=False)
        yield walk(experiment, directory, command)


def test_an_own_table_is_served_as_its_fusion_form_scores_it(own_table: Path4) -> None:
    assert_scores_agree(own_table, RATE)


def test_the_logit_correction_of_kept_negatives_is_in_the_served_score(own_table: Path4) -> None:
    row = own_table.rows[0]
    candidate = {name: value for name, value in row["candidate"].items() if name != "position"}
    uncorrected = Expected(own_table.run)([row["context"]], [candidate])[0]
    (served,) = Scorer(read_bundle(own_table.bundle)).score(row["context"], [candidate])
    odds = uncorrected / (1 - uncorrected) * RATE
    assert float(served) == pytest.approx(odds / (1 + odds), abs=TOLERANCE)
    assert abs(float(served) - uncorrected) > 100 * TOLERANCE


def test_the_training_only_field_is_served_as_its_constant_and_refused_in_a_request(own_table: Path4) -> None:
    bundle = read_bundle(own_table.bundle)
    assert "position" not in {field.name for field in bundle.encoder.fields}
    row = own_table.rows[0]
    with serving(own_table.bundle) as server:
        refused = httpx.post(
            f"{server.url}/score",
            json={"context": row["context"], "candidates": [row["candidate"] | {"position": "2"}]},
        )
    assert refused.status_code == 422
    assert refused.json()["where"] == "candidates[0].position"
    assert "training" in refused.json()["expected"]


def test_the_run_measures_within_groups_and_both_towers_beside_the_fused_one(own_table: Path4) -> None:
    metrics = json.loads((own_table.run / "metrics.json").read_text(encoding="utf-8"))
    validation = metrics["validation"]
    assert {"tower_a", "tower_b", "pair", "fused"} <= validation.keys()
    for measured in validation.values():
        assert {"auc", "log_loss", "gauc", "ndcg@10"} <= measured.keys()
