"""Training steps a second, beside FuxiCTR's trainer, bare matrix products, and tables a hundred times as long.

    python -m tests.training.bench_speed [--rounds 7] [--threads 1] [--only towers products rows] [--figures FILE]
    python -m tests.training.bench_speed --device cuda

1. `towers`: one 64-64 tower over 26 fields, the same in both: d = 8, batch norm, dropout, batches of 4096 rows whose
   ids have a long tail. Half of the fields are small, the tables of the others have --sizes values each. Ours is a step
   of a training phase as it is (rows gathered, values hidden, tables with moments and averages); FuxiCTR's is its
   `BaseModel.train_step` on `FeatureEmbedding` and `MLP_Block`, its batches gathered beforehand, no regularisation.
2. `products`: one tower of three layers of 400, against the matrix products of its forward and backward alone.
3. `rows`: our step of (1) with tables of 10^5 rows in all and of 10^7.

What is compared takes turns in one process; figures are medians over the rounds and ratios of the same round. Times
are of CPU, so that other processes disturb little; --clock measures by the clock, as a GPU is measured anyway. With
--figures they are written down: `benchmarks/training_speed.json` becomes a section of `benchmarks/ACCURACY.md`, by the
benchmark's `--report-only`.
"""

# ruff: noqa: T201 - a bench prints
from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.dtf import TowerLearner
from training.models.base import FieldSlot
from training.models.reaction import Tower
from training.phases.learner import Rows
from training.phases.phase import Phase, PhaseSettings
from training.phases.tables import TableBank
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIELDS, LARGE, DIM, BATCH, ROWS = 26, 13, 8, 4096, 120_000
DROPOUT = 0.15
WARM_UP, STEPS = 3, 5
WANTED_FROM = 10**5

Figure = dict[str, Any]


def made_up(table_rows: int, seed: int = 0) -> tuple[list[FieldSlot], Any]:
    """Fields, a third of them on the context side, whose large tables share so many rows, and rows that read them."""
    rng = np.random.default_rng(seed)
    small = [int(size) for size in rng.integers(5, 400, FIELDS - LARGE)]
    large = [table_rows // LARGE] * LARGE
    sizes = rng.permutation(np.array(small + large)).tolist()
    context = FIELDS // 3
    slots = [
        FieldSlot(f"f{i}", *(("context", i) if i < context else ("candidate", i - context)), 1, rows=size, dim=DIM)
        for i, size in enumerate(sizes)
    ]
    ids = np.stack([(rng.random(ROWS) ** 4 * size).astype(np.int32) for size in sizes], 1)
    label = (rng.random(ROWS) < 0.3).astype(np.uint8)
    split = SimpleNamespace(
        context_ids=np.ascontiguousarray(ids[:, :context]),
        candidate_ids=np.ascontiguousarray(ids[:, context:]),
        label=label,
        weight=None,
        group=None,
    )
    return slots, split


def ours(slots: Sequence[FieldSlot], split: Any, widths: Sequence[int], device: torch.device) -> Callable[[], None]:
    """A step of our first phase."""
    torch.manual_seed(0)
    config = TrainConfig(batch_size=BATCH, dropout=DROPOUT, device=device.type)
    rows = Rows(split, device)
    tower = Tower(slots, widths, dropout=DROPOUT).to(device)
    columns = split.context_ids.shape[1]
    bank = TableBank(
        slots,
        list(tower.tables),
        config.table_settings(len(rows)),
        context_columns=columns,
        total_columns=FIELDS,
    )
    settings = PhaseSettings(
        name="bench",
        seed=0,
        batch_size=BATCH,
        epochs=1000,
        evaluations=1,
        patience=1,
        rate=config.rate,
        table_rate=config.table_rate,
        monitor="log_loss",
        dense=config.dense_settings(),
    )
    return Phase(TowerLearner("bench", tower, bank, unknown=config.unknown), rows, rows, settings)._step


def fuxictr(slots: Sequence[FieldSlot], split: Any, widths: Sequence[int], device: torch.device) -> Callable[[], None]:
    """FuxiCTR's step of the same tower."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    logging.getLogger().setLevel(logging.WARNING)
    features = FeatureMap("bench", ".")
    features.labels = ["label"]
    for slot in slots:
        features.features[slot.name] = {"type": "categorical", "source": "", "vocab_size": slot.rows}
    features.num_fields = features.get_num_fields()
    features.set_column_index()

    class Dnn(BaseModel):
        """Its model zoo's DNN."""

        def __init__(self) -> None:
            gpu = -1 if device.type == "cpu" else 0
            super().__init__(features, model_id="DNN", gpu=gpu, verbose=0, model_root="build", metrics=["AUC"])
            self.embedding_layer = FeatureEmbedding(features, DIM)
            self.mlp = MLP_Block(
                input_dim=FIELDS * DIM,
                output_dim=1,
                hidden_units=list(widths),
                hidden_activations="ReLU",
                output_activation=self.output_activation,
                dropout_rates=DROPOUT,
                batch_norm=True,
            )
            self.compile("adam", "binary_crossentropy", 1e-3)
            self.reset_parameters()
            self.model_to_device()
            self._max_gradient_norm = 10.0  # its `fit`'s default

        def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"y_pred": self.mlp(self.embedding_layer(self.get_inputs(inputs), flatten_emb=True))}

    torch.manual_seed(0)
    model = Dnn()
    model.train()
    ids = torch.from_numpy(np.concatenate([split.context_ids, split.candidate_ids], 1)).long()
    label = torch.from_numpy(split.label).float()
    order = torch.randperm(ROWS)
    batches = [
        {**{slot.name: ids[rows, i] for i, slot in enumerate(slots)}, "label": label[rows]}
        for rows in order.split(BATCH)[:8]
    ]
    place = iter(range(10**9))

    def step() -> None:
        model.train_step(batches[next(place) % len(batches)]).item()

    return step


def products(widths: Sequence[int], device: torch.device) -> Callable[[], None]:
    """The matrix products of a tower's step: forward, and both gradients of every layer."""
    torch.manual_seed(0)

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device)

    layers = [
        (made(BATCH, a), made(a, b), made(BATCH, b), made(a, b), made(BATCH, a))
        for a, b in pairwise([FIELDS * DIM, *widths, 1])
    ]

    def step() -> None:
        for x, weight, out, _, _ in layers:
            torch.mm(x, weight, out=out)
        for x, weight, out, to_weight, to_x in reversed(layers):
            torch.mm(x.t(), out, out=to_weight)
            torch.mm(out, weight.t(), out=to_x)

    return step


def in_turns(steps: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds a step of each, every round."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    for _ in range(rounds):
        for name, step in steps.items():
            started = clock()
            for _ in range(STEPS):
                step()
            found[name].append((clock() - started) / STEPS)
    return found


def figure(what: str, over: list[float], under: list[float], *, ours: list[float], least: float, most: float) -> Figure:
    """The median ratio of the same round and its range, beside what is wanted of it; prints it.

    Args:
        what: What is compared.
        over: Seconds a step, one a round.
        under: Of the same rounds.
        ours: Which of the two is ours.
        least: Of the ratio.
        most: Of the ratio.
    """
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    found = {
        "what": what,
        "rows_a_second": BATCH / statistics.median(ours),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "least": least if math.isfinite(least) else None,
        "most": most if math.isfinite(most) else None,
    }
    wanted = f"at least {least:g}" if math.isfinite(least) else f"at most {most:g}"
    print(
        f"{what}: {found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f}) times; wanted: {wanted}; "
        f"ours {found['rows_a_second']:,.0f} rows/s",
        flush=True,
    )
    return found


def device_clock() -> float:
    """Seconds, once the GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def write(path: Path, figures: Sequence[Figure], *, device: torch.device, threads: int, rounds: int) -> None:
    """Write the figures down, with the machine's name and the command."""
    from benchmarks.serving.machine import facts

    document = {
        "format": "reaction-training-speed",
        "version": 1,
        "command": "python -m tests.training.bench_speed --figures benchmarks/training_speed.json",
        "machine": facts(None),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": threads,
        "rounds": rounds,
        "figures": list(figures),
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", action="store_true", help="by the clock, not by CPU time")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", default=["towers", "products", "rows"])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10**4, 10**5], help="values of each large field of `towers`"
    )
    parser.add_argument("--figures", type=Path, help="a file to write them to")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: expected a machine with a CUDA device, got none")
    clock = time.perf_counter if arguments.clock else time.process_time
    if device.type == "cuda":
        clock = device_clock
    if "towers" in arguments.only:
        for size in arguments.sizes:
            slots, split = made_up(size * LARGE)
            both = {"ours": ours, "theirs": fuxictr}
            steps = {name: begin(slots, split, (64, 64), device) for name, begin in both.items()}
            found = in_turns(steps, arguments.rounds, clock)
            what = f"64-64 tower, {LARGE} tables of {size:,} values: FuxiCTR's time over ours"
            # Wanted of tables of 10^5 values and more; of shorter ones it is shown.
            least = 3.0 if size >= WANTED_FROM else 1.0
            over, under = found["theirs"], found["ours"]
            figures.append(figure(what, over, under, ours=under, least=least, most=math.inf))
    if "products" in arguments.only:
        widths = (400, 400, 400)
        slots, split = made_up(10**5)
        steps = {"ours": ours(slots, split, widths, device), "bare": products(widths, device)}
        found = in_turns(steps, arguments.rounds, clock)
        what = "3x400 tower: our time over that of its matrix products alone"
        over, under = found["ours"], found["bare"]
        figures.append(figure(what, over, under, ours=over, least=-math.inf, most=1.3))
    if "rows" in arguments.only:
        steps = {f"{size:,}": ours(*made_up(size), (64, 64), device) for size in (10**5, 10**7)}
        small, large = in_turns(steps, arguments.rounds, clock).values()
        what = "64-64 tower: our time with 10^7 table rows over that with 10^5"
        figures.append(figure(what, large, small, ours=large, least=-math.inf, most=2.0))
    if arguments.figures is not None:
        write(arguments.figures, figures, device=device, threads=arguments.threads, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
