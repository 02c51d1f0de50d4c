"""What reading a request costs in each form: `/score` beside the Open Inference Protocol, the same values in all.

    python -m tests.service.openinference.bench_open_inference

26 fields of context (7 numeric, 19 categorical) and 13 of the candidates (6 and 7), 8-digit texts, values drawn with a
long tail, a tenth missing. Prints, for 1 to 1000 candidates, microseconds to decode and encode a request (the mean over
requests of the least of interleaved rounds) and the ratio to `/score` in columns. "mixed" sends numbers as bytes and
texts in the JSON.
"""

# ruff: noqa: T201 - a command prints

import math
import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
from tests.service.openinference.tensors_on_the_wire import HEADER, body, tensor

from service.features import CategoricalField, FeatureEncoder, NumericField, Vocabulary, log_squared_edges
from service.openinference.pipeline import InferPipeline, InferWork
from service.pipeline import Pipeline, Work

TOKENS = 20_000
EDGES = log_squared_edges(1e5)
CONTEXT, CANDIDATE = (7, 19), (6, 7)
BODIES, ROUNDS = 16, 40
FORMS = ("rows", "columns", "packed", "json", "binary", "mixed")


def made_encoder() -> tuple[FeatureEncoder, dict[str, list[str]]]:
    buckets = [str(bucket) for bucket in range(len(EDGES) + 1)]
    fields: list[NumericField | CategoricalField] = []
    for side, (numbers, words) in (("context", CONTEXT), ("candidate", CANDIDATE)):
        fields += [NumericField(f"{side}_I{k}", side, EDGES) for k in range(numbers)]  # type: ignore[arg-type]
        fields += [CategoricalField(f"{side}_C{k}", side) for k in range(words)]  # type: ignore[arg-type]
    words = [field.name for field in fields if field.kind == "categorical"]
    # an odd factor: no text comes twice
    tokens = {
        name: [f"{(k * 2_654_435_761 + place * 40_503) % 2**32:08x}" for k in range(TOKENS)]
        for place, name in enumerate(words)
    }
    vocabularies = {f.name: Vocabulary(tokens.get(f.name, buckets)) for f in fields}
    return FeatureEncoder(fields, vocabularies), tokens


def value(name: str, tokens: dict[str, list[str]], rng: random.Random) -> str | int | None:
    if rng.random() < 0.1:
        return None
    return tokens[name][int(TOKENS ** rng.random()) - 1] if name in tokens else int(500 ** rng.random()) - 1


def tensors(encoder: FeatureEncoder, context: dict[str, Any], columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    found = []
    for field in encoder.fields:
        values = [context[field.name]] if field.side == "context" else columns[field.name]
        if field.kind == "numeric":
            found.append(tensor(field.name, "FP32", [float("nan") if v is None else float(v) for v in values]))
        else:
            found.append(tensor(field.name, "BYTES", [v or "" for v in values]))
    return found


def bodies(encoder: FeatureEncoder, tokens: dict[str, list[str]], count: int, seed: int) -> dict[str, tuple[Any, ...]]:
    """One request in every form."""
    rng = random.Random(seed)
    sides = {side: [c.name for c in encoder.columns(side)] for side in ("context", "candidate")}  # type: ignore[arg-type]
    context = {name: value(name, tokens, rng) for name in sides["context"]}
    rows = [{name: value(name, tokens, rng) for name in sides["candidate"]} for _ in range(count)]
    columns = {name: [row[name] for row in rows] for name in sides["candidate"]}
    made = tensors(encoder, context, columns)
    plain = [
        given
        | {"data": [None if isinstance(number, float) and math.isnan(number) else number for number in given["data"]]}
        for given in made
    ]
    numbers = [given["name"] for given in made if given["datatype"] != "BYTES"]
    return {
        "rows": (msgspec.json.encode({"context": context, "candidates": rows}), None),
        "columns": (msgspec.json.encode({"context": context, "candidates": columns}), None),
        "packed": (msgspec.msgpack.encode({"context": context, "candidates": columns}), None),
        "json": body(plain),
        "binary": body(made, binary=[given["name"] for given in made]),
        "mixed": body(made, binary=numbers),
    }


def reader(form: str, content: bytes, headers: dict[str, str] | None, scorer: Any) -> Callable[[], object]:
    if headers is None:
        score = Pipeline(scorer, max_candidates=10_000)
        return lambda: score.read(Work(content, request_id="r", packed=form == "packed", answer_packed=False))
    infer = InferPipeline(scorer, max_candidates=10_000)
    length = int(headers[HEADER]) if HEADER in headers else None
    return lambda: infer.read(InferWork(content, request_id="r", header_length=length))


def main() -> None:
    encoder, tokens = made_encoder()
    bundle = SimpleNamespace(manifest=SimpleNamespace(model_id="m"))
    scorer = SimpleNamespace(encoder=encoder, encode=None, run=None, bundle=bundle)
    print("candidates  " + "".join(f"{form:>16}" for form in FORMS))
    for count in (1, 10, 100, 1000):
        written = [bodies(encoder, tokens, count, seed) for seed in range(BODIES)]
        works = {form: [reader(form, *one[form], scorer) for one in written] for form in FORMS}
        least = {form: [float("inf")] * BODIES for form in FORMS}
        for _ in range(ROUNDS):
            for form in FORMS:
                for place, work in enumerate(works[form]):
                    start = time.perf_counter()
                    work()
                    least[form][place] = min(least[form][place], time.perf_counter() - start)
        mean = {form: sum(times) / BODIES for form, times in least.items()}
        cells = [f"{1e6 * mean[form]:9.1f} {mean[form] / mean['columns']:5.2f}x" for form in FORMS]
        print(f"{count:10}  " + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
