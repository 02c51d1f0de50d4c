"""A small bundle whose scores are known by hand, and a real server process that serves it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.bundle import GoldenRow, Inputs, write_bundle
from service.features import CategoricalField, FeatureEncoder, MultiValuedField, NumericField, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
MODEL_ID = "tiny-1"
EDGES = (1.0, 2.5, 10.0)
BASE_RATE = 0.25

FIELDS = (
    CategoricalField("user", "context"),
    NumericField("hour", "context", edges=EDGES),
    CategoricalField("site", "context"),
    CategoricalField("ad", "candidate"),
    NumericField("price", "candidate", edges=EDGES),
    MultiValuedField("tags", "candidate", max_values=3),
    CategoricalField("colour", "candidate"),
    CategoricalField("position", "candidate", serving_constant="1"),
)
DROPPED = ("site", "colour")
COUNTS = {
    "user": {"u1": 9, "u2": 5, "7": 3},
    "hour": {"0": 4, "1": 3, "2": 2, "3": 1},
    "site": {"s": 2},
    "ad": {"a1": 9, "a2": 8, "é": 7},
    "price": {"0": 4, "1": 3, "2": 2, "3": 1},
    "tags": {"x": 9, "y": 8},
    "colour": {"red": 3},
    "position": {"1": 3},
}
ROW_CONTEXT = {"user": "u1", "hour": 2}
ROW_CANDIDATES = [
    {"ad": "a1", "price": "0.5", "tags": ["x", "y"]},
    {"ad": "a2", "price": 3, "tags": "y|unseen"},
    {"ad": "unseen", "tags": None},
]


class HandModel:
    """Logistic regression over the fields, scored by hand: the independent answer to what the service answers."""

    def __init__(self, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        self.fields = [f for f in FIELDS if f.name not in DROPPED and not f.training_only]
        self.weights = {
            f.name: rng.normal(size=len(COUNTS[f.name]) + f.reserved).astype(np.float32) for f in self.fields
        }
        self.weights["tags"][2] = 0.0  # the pad id

    def ids(self, name: str, raw: object) -> list[int]:
        spec = next(f for f in self.fields if f.name == name)
        tokens = sorted(COUNTS[name], key=lambda token: (-COUNTS[name][token], token))
        known = {token: place + spec.reserved for place, token in enumerate(tokens)}
        if name in ("hour", "price"):
            return [0] if raw in (None, "") else [known[str(bisect_right(EDGES, float(raw)))]]  # type: ignore[arg-type]
        if name != "tags":
            return [0] if raw in (None, "") else [known.get(str(raw), 1)]
        values = raw.split("|") if isinstance(raw, str) else [str(value) for value in (raw or [])]  # type: ignore[attr-defined]
        found = [known.get(value, 1) for value in values if value][:3] or [0]
        return found + [2] * (3 - len(found))

    def side_ids(self, side: str, row: Mapping[str, object]) -> list[int]:
        return [i for f in self.fields if f.side == side for i in self.ids(f.name, row.get(f.name))]

    def score(self, context: Mapping[str, object], candidate: Mapping[str, object]) -> float:
        row = {**context, **candidate}
        logit = sum(float(self.weights[f.name][i]) for f in self.fields for i in self.ids(f.name, row.get(f.name)))
        return 1 / (1 + math.exp(-logit))

    def graph(
        self, encoder: FeatureEncoder, *, endless_above: int | None = None, nan_above: int | None = None
    ) -> onnx.ModelProto:
        """The same as a graph; one that computes for days where there are more candidates than `endless_above`.

        Where there are more than `nan_above`, scores are no numbers.
        """
        nodes, constants, terms = [], [], []
        for side, name in (("context", "context_ids"), ("candidate", "candidate_ids")):
            offsets, first, parts = [], 0, []
            for spec in (f for f in encoder.fields if f.side == side):
                offsets += [first] * spec.width
                first += len(self.weights[spec.name])
                parts.append(self.weights[spec.name])
            constants += [
                numpy_helper.from_array(np.array(offsets, np.int32), f"{side}_offsets"),
                numpy_helper.from_array(np.concatenate(parts), f"{side}_weights"),
            ]
            nodes += [
                helper.make_node("Add", [name, f"{side}_offsets"], [f"{side}_places"]),
                helper.make_node("Gather", [f"{side}_weights", f"{side}_places"], [f"{side}_values"]),
                helper.make_node("ReduceSum", [f"{side}_values", "one"], [f"{side}_sum"], keepdims=0),
            ]
            terms.append(f"{side}_sum")
        constants.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
        nodes += [helper.make_node("Add", terms, ["logit"]), helper.make_node("Sigmoid", ["logit"], ["pctr"])]
        if endless_above is not None:
            nodes[-1].output[:] = ["probability"]
            more, constants_of_loop = _endless_loop(endless_above)
            nodes += more
            constants += constants_of_loop
        if nan_above is not None:
            nodes[-1].output[:] = ["probability"]
            constants += [
                numpy_helper.from_array(np.array([nan_above], np.int64), "few"),
                numpy_helper.from_array(np.array(np.nan, np.float32), "nan"),
            ]
            nodes += [
                helper.make_node("Shape", ["probability"], ["candidates"]),
                helper.make_node("Greater", ["candidates", "few"], ["too_many"]),
                helper.make_node("Where", ["too_many", "nan", "probability"], ["pctr"]),
            ]
        inputs = [
            helper.make_tensor_value_info(f"{side}_ids", TensorProto.INT32, [f"{side}_rows", encoder.width(side)])
            for side in ("context", "candidate")
        ]
        output = helper.make_tensor_value_info("pctr", TensorProto.FLOAT, ["candidate_rows"])
        graph = helper.make_graph(nodes, "hand", inputs, [output], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _endless_loop(candidates: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """From `probability` to `pctr`, which is the same, by way of 10^12 rounds for each candidate that is too many."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("value", "next_value")]
    go_on = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go_on", "go_on_too")]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_too"]),
            helper.make_node("Mul", ["value", "factor"], ["next_value"]),
        ],
        "round",
        [helper.make_tensor_value_info("round", TensorProto.INT64, []), go_on[0], value[0]],
        [go_on[1], value[1]],
        [numpy_helper.from_array(np.array(1, np.float32), "factor")],
    )
    numbers = {"first": 0, "few": candidates, "none": 0, "rounds_of_each": 10**12}
    nodes = [
        helper.make_node("Shape", ["candidate_ids"], ["candidate_shape"]),
        helper.make_node("Gather", ["candidate_shape", "first"], ["candidates"]),
        helper.make_node("Sub", ["candidates", "few"], ["beyond"]),
        helper.make_node("Max", ["beyond", "none"], ["too_many"]),
        helper.make_node("Mul", ["too_many", "rounds_of_each"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "", "probability"], ["pctr"], body=body),
    ]
    return nodes, [numpy_helper.from_array(np.array(number, np.int64), name) for name, number in numbers.items()]


def build_encoder() -> FeatureEncoder:
    vocabularies = {f.name: Vocabulary.fit(COUNTS[f.name], 1, reserved=f.reserved) for f in FIELDS}
    return FeatureEncoder(FIELDS, vocabularies).for_serving(DROPPED)


def build_bundle(
    destination: Path,
    *,
    golden_offset: float = 0.0,
    model_id: str = MODEL_ID,
    endless_above: int | None = None,
    nan_above: int | None = None,
    seed: int = 7,
) -> HandModel:
    """Write the bundle; `golden_offset` makes golden scores that the graph does not give, see also `graph`."""
    model, encoder = HandModel(seed), build_encoder()
    golden = [
        GoldenRow(
            context=context,
            candidate=candidate,
            context_ids=model.side_ids("context", context),
            candidate_ids=model.side_ids("candidate", candidate),
            pctr=model.score(context, candidate) + golden_offset,
        )
        for context in (ROW_CONTEXT, {"user": "golden-user", "hour": "10"}, {})
        for candidate in ROW_CANDIDATES
    ]
    with write_bundle(destination) as staged:
        onnx.save(model.graph(encoder, endless_above=endless_above, nan_above=nan_above), staged.path / "model.onnx")
        staged.write_encoder(encoder)
        staged.write_golden(golden)
        staged.write_reference(
            {
                "format": "reaction-reference",
                "version": 1,
                "rows": 100,
                "base_rate": BASE_RATE,
                "score_histogram": {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "counts": [40, 30, 20, 10]},
                "fields": {
                    "user": {
                        "missing": 0.125,
                        "out_of_vocabulary": 0.0625,
                        "histogram": {"ids": [2, 3, 0, 4, 1], "counts": [40, 30, 12, 10, 6], "other": 2},
                    }
                },
            }
        )
        staged.describe(
            model_id,
            Inputs(context_ids=encoder.width("context"), candidate_ids=encoder.width("candidate")),
            training={"metrics": {"validation": {"fused": {"auc": 0.75}}}},
            model={"tolerance": 1e-6, "dropped_fields": list(DROPPED)},
        )
    return model


def parse_log(text: str) -> list[dict[str, Any]]:
    """Lines of a server's log; whatever is no JSON object is shown with all around it."""
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError as error:
        raise AssertionError(f"the log is no JSON: {text}") from error


@dataclass
class Server:
    """A running `python -m service`."""

    process: subprocess.Popen[str]
    address: tuple[str, int]
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def stop(self) -> int:
        """SIGTERM, then the exit status; the rest of the log is kept."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> int:
        """The exit status of one that was told to end: another signal might meet an interpreter that handles none."""
        _, rest = self.process.communicate(timeout=30)
        self.log += parse_log(rest)
        return self.process.returncode


def environment(**settings: object) -> dict[str, str]:
    """This process's environment without settings of the service, and with these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REACTION_")}
    return clean | {f"REACTION_{name.upper()}": str(value) for name, value in settings.items()}


def read_line(descriptor: int) -> str:
    """A line, and nothing of what comes behind it; empty at the end. What a file reads ahead, `communicate` misses."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line.decode()


def start(
    bundle: Path, *, wait: bool = True, descriptors: int | None = None, first: str = "", **settings: object
) -> Server:
    """Start a server on a free port, one worker unless told otherwise; by default wait until it is ready.

    It may open so many files, or as many as this process may. A shell does what comes first, in its process.
    """
    settings.setdefault("workers", 1)
    settings.setdefault("drain_seconds", 0)
    # Tests run beside others, which leave nothing to what is loaded at the lowest priority.
    settings.setdefault("patience_seconds", 0.5)
    settings = {name: value for name, value in settings.items() if value is not None}  # as if not set
    if descriptors is not None:
        first += f"ulimit -S -n {descriptors}; "
    limited = ["sh", "-c", f'{first}exec "$0" "$@"'] if first else []
    process = subprocess.Popen(
        [*limited, sys.executable, "-m", "service", "--bundle", str(bundle), "--port", "0"],
        cwd=ROOT,
        env=environment(**settings),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    log: list[dict[str, Any]] = []
    while line := read_line(process.stderr.fileno()):
        log += parse_log(line)
        if log[-1]["event"] == "listening":
            break
    else:
        raise AssertionError(f"the server ended with {process.wait()}: {log}")
    server = Server(process, (log[-1]["host"], log[-1]["port"]), log)
    if wait:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{server.url}/readyz").status_code == 200:
                    return server
            time.sleep(0.02)
        raise AssertionError(f"not ready in time: {log}")
    return server


@contextlib.contextmanager
def serving(bundle: Path, **settings: object) -> Iterator[Server]:
    """A ready server that is stopped at the end."""
    server = start(bundle, **settings)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def talk(address: tuple[str, int], *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send raw bytes, and give back all that comes until the server closes or falls silent."""
    with socket.create_connection(address, timeout=0.5) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(65_536):
                answer += part
    return answer


def samples(text: str) -> dict[str, float]:
    """A scrape as a dictionary from `name{labels}` to its value."""
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    }
