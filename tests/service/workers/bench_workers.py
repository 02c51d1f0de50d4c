"""What workers share: memory of 1, 2 and 4 of them that serve one large table.

    python -m tests.service.workers.bench_workers [--table-mib 1024] [--workers 1 2 4]

Writes a bundle with one table of that size as external data and a vocabulary that names its every row, serves it with
each number of workers, asks each worker for candidates drawn at random until nearly every page of the table was read,
and prints RSS (what `ps` adds up, shared pages once a process), PSS (shared pages split among those that map them, so
the sum is what is really used) and USS (a worker's own pages), in MiB. Linux only.
"""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import httpx
import numpy as np
import psutil
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "service")]

from serving import Server, serving  # noqa: E402 - found by the line above

from model_export.graph import IR_VERSION, OPSET, Graph, save  # noqa: E402
from service.bundle import GoldenRow, Inputs, write_bundle  # noqa: E402
from service.features import CategoricalField, FeatureEncoder, Vocabulary  # noqa: E402

WIDTH = 64
RESERVED = 2
CANDIDATES = 10_000
MIB = 1 << 20


def token(number: int) -> str:
    """Ten hexadecimal digits, as anonymised identifiers look."""
    return f"{number * 40503 % (1 << 40):010x}"


def graph_of(table: np.ndarray) -> Graph:
    """The sigmoid of the sum of an ad's row; the user counts for nothing."""
    constants = [
        numpy_helper.from_array(np.array([1, 2]), "axes"),
        numpy_helper.from_array(np.array([0.0], "f4"), "no"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "candidate_ids"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axes"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["context_ids"], ["user"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["user", "no"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing"], ["zero"], keepdims=0),
        helper.make_node("Add", ["sum", "zero"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["pctr"]),
    ]
    inputs = [
        helper.make_tensor_value_info("context_ids", TensorProto.INT32, ["context_rows", 1]),
        helper.make_tensor_value_info("candidate_ids", TensorProto.INT32, ["rows", 1]),
        helper.make_tensor_value_info("table", TensorProto.FLOAT, list(table.shape)),
    ]
    output = helper.make_tensor_value_info("pctr", TensorProto.FLOAT, ["rows"])
    graph = helper.make_graph(nodes, "bench", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return Graph(model, {"table": table})


def write(destination: Path, rows: int) -> None:
    """A bundle whose table has this many rows."""
    rng = np.random.default_rng(7)
    table = rng.standard_normal((rows, WIDTH), np.float32) / 32
    fields = (CategoricalField("user", "context"), CategoricalField("ad", "candidate"))
    vocabularies = {
        "user": Vocabulary(["u1"], RESERVED),
        "ad": Vocabulary([token(number) for number in range(rows - RESERVED)], RESERVED),
    }
    golden = [
        GoldenRow(
            context={"user": "u1"},
            candidate={"ad": token(number)},
            context_ids=[RESERVED],
            candidate_ids=[number + RESERVED],
            pctr=float(1 / (1 + np.exp(-table[number + RESERVED].sum(dtype=np.float64)))),
        )
        for number in rng.integers(0, rows - RESERVED, 32).tolist()
    ]
    with write_bundle(destination) as staged:
        save(graph_of(table), staged.path / "model.onnx")
        staged.write_encoder(FeatureEncoder(fields, vocabularies).for_serving(()))
        staged.write_golden(golden)
        staged.write_reference(
            {"format": "reaction-reference", "version": 1, "rows": 1, "base_rate": 0.5, "fields": {}}
        )
        staged.describe("bench", Inputs(context_ids=1, candidate_ids=1), training={}, model={"tolerance": 1e-5})


def touch(server: Server, rows: int, workers: int) -> int:
    """Score random ads, until each worker has read three rows for each page of the table; requests sent."""
    rng = np.random.default_rng(11)
    pages = rows * WIDTH * 4 // 4096
    requests = max(1, 3 * pages * workers // CANDIDATES)
    for start in range(0, requests, 8):
        clients = [httpx.Client(base_url=server.url, timeout=60) for _ in range(8)]
        for client in clients[: requests - start]:
            ads = [token(number) for number in rng.integers(0, rows - RESERVED, CANDIDATES).tolist()]
            body = json.dumps({"context": {"user": "u1"}, "candidates": {"ad": ads}})
            client.post("/score", content=body, headers={"content-type": "application/json"}).raise_for_status()
        for client in clients:
            client.close()
    return requests


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table-mib", type=int, default=1024)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args()
    rows = given.table_mib * MIB // (WIDTH * 4)
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as folder:
        bundle = Path(folder) / "bundle"
        write(bundle, rows)
        print(f"table {given.table_mib} MiB, {rows:,} rows of {WIDTH} float32; vocabulary of as many tokens, mapped")
        print(f"{'workers':>7} {'ready s':>8} {'RSS':>7} {'PSS':>7} {'USS a worker':>13} {'PSS / (k x one)':>16}")
        alone = 0.0
        for workers in given.workers:
            with serving(bundle, workers=workers) as server:
                touch(server, rows, workers)
                parent = psutil.Process(server.process.pid)
                serve = parent.children() if workers > 1 else [parent]
                memory = [process.memory_full_info() for process in {parent, *serve}]
                own = sum(process.memory_full_info().uss for process in serve) / len(serve)
            loads = [line["load_seconds"] for line in server.log if line["event"] == "ready"]
            rss, pss = (sum(getattr(one, kind) for one in memory) / MIB for kind in ("rss", "pss"))
            alone = alone or pss / workers
            ratio = pss / (workers * alone)
            print(f"{workers:>7} {max(loads):>8.2f} {rss:>7.0f} {pss:>7.0f} {own / MIB:>13.0f} {ratio:>16.2f}")


if __name__ == "__main__":
    main()
