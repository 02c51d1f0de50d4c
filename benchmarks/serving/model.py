"""One random model with the shapes of a real one, as a bundle for the service and as one graph for everyone else.

The service's copy goes through the real export: folding chosen by its cost model, passes, golden rows, digests. The
other servers get the same function of the same weights in the form that suits them best: one input of global ids,
or the folded one, whichever is faster here: one input of global ids, one look-up, and no context that is shared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from benchmarks.serving.job import CATEGORICAL, CONTEXT, EDGES, FIELDS, NUMERIC, OWN, SIZES, key, rows_of_fields
from benchmarks.serving.payloads import MODEL_ID, random_row
from model_export.fusion import FusedTower, FusionFacts, fuse, logits
from model_export.fusion.layout import SIDES
from model_export.fusion.tower import Dense, FusedField
from model_export.graph import save
from model_export.latency import interleaved_medians, session
from model_export.parity import sigmoid
from model_export.passes import apply_passes
from model_export.single_input import to_single_input
from model_export.to_onnx import to_onnx
from service.bundle import MODEL_FILE, GoldenRow, Inputs, write_bundle
from service.features import CategoricalField, FeatureEncoder, NumericField, Vocabulary
from training.reference import reference_statistics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from service.features import Field, Side

PlainForm = Literal["padded", "folded"]

WIDTHS: Final = (64, 64)
SMALL_DIM: Final = 4
LARGE_DIM: Final = 8
_LARGE_FROM: Final = 1000
"""Fields of this many texts or more get the larger dimension."""
FEW_CONTEXT: Final = CONTEXT[-1:]
"""The context field of the second bundle, for the cost of the others."""
_GOLDEN_ROWS: Final = 48
_REFERENCE_ROWS: Final = 2000
_BASE_RATE: Final = 0.25
_TABLE_SCALE: Final = 0.5
_BIAS: Final = -1.0


def features(context: Sequence[str] = CONTEXT) -> FeatureEncoder:
    """The fields with their vocabularies, equal to the formula of `job`.

    Args:
        context: Names of the context side's fields; the candidate side is always `job.OWN`.
    """
    fields: list[Field] = []
    vocabularies: dict[str, Vocabulary] = {}
    for name in (*context, *OWN):
        side: Side = "context" if name in CONTEXT else "candidate"
        if name in NUMERIC:
            fields.append(NumericField(name, side, edges=EDGES))
            tokens = [str(bucket) for bucket in range(len(EDGES) + 1)]
        else:
            number = CATEGORICAL.index(name)
            fields.append(CategoricalField(name, side))
            tokens = [key(number, place) for place in range(SIZES[number])]
        vocabularies[name] = Vocabulary(tokens)
    return FeatureEncoder(fields, vocabularies)


def random_tower(encoder: FeatureEncoder, seed: int = 11) -> FusedTower:
    """A tower over the encoder's fields; "missing" and "never seen" read equal rows, as the formula has only one."""
    generator = np.random.default_rng(seed)
    fields = []
    for side in SIDES:
        for column in encoder.columns(side):
            rows = len(encoder.vocabulary(column.name))
            dim = LARGE_DIM if rows >= _LARGE_FROM else SMALL_DIM
            table = generator.normal(0, _TABLE_SCALE, (rows, dim)).astype(np.float32)
            table[0] = table[1]
            projection = generator.normal(0, dim**-0.5, (dim, WIDTHS[0]))
            fields.append(FusedField(column.name, side, column.first, column.width, table, projection))
    return FusedTower(
        fields=tuple(fields),
        bias=generator.normal(0, 0.1, WIDTHS[0]),
        layers=(_dense(generator, WIDTHS[0], WIDTHS[1]),),
        output=replace(_dense(generator, WIDTHS[1], 1), bias=np.array([_BIAS])),
    )


def _dense(generator: np.random.Generator, inputs: int, outputs: int) -> Dense:
    return Dense(generator.normal(0, inputs**-0.5, (inputs, outputs)), generator.normal(0, 0.1, outputs))


def write_bundles(folder: Path) -> FusedTower:
    """Write `bundle`, and `few`: the same model and graph without most context fields.

    Returns:
        The model.
    """
    tower = random_tower(features())
    fused = fuse(tower, FusionFacts())
    _write_bundle(folder / "bundle", features(), tower, fused, MODEL_ID)
    _write_bundle(folder / "few", features(FEW_CONTEXT), _with_few(tower), _with_few(fused), "few")
    return tower


def _with_few(tower: FusedTower) -> FusedTower:
    """The tower with the one context field of `FEW_CONTEXT`; how its candidates are looked up does not change."""
    kept = [field for field in tower.fields if field.side == "candidate" or field.name in FEW_CONTEXT]
    return replace(tower, fields=tuple(replace(f, first=0) if f.side == "context" else f for f in kept), folding=())


def _write_bundle(path: Path, encoder: FeatureEncoder, tower: FusedTower, fused: FusedTower, model_id: str) -> None:
    serving = FeatureEncoder(
        [encoder.field(field.name) for field in fused.fields],
        {field.name: encoder.vocabulary(field.name) for field in fused.fields},
    )
    graph = apply_passes(to_onnx(fused))
    with write_bundle(path) as staged:
        save(graph, staged.path / MODEL_FILE)
        staged.write_encoder(serving)
        staged.write_golden(_golden(encoder, tower, serving))
        staged.write_reference(_reference(serving, {field.name for field in encoder.fields}))
        widths = Inputs(context_ids=serving.width("context"), candidate_ids=serving.width("candidate"))
        folded = [field.name for field in fused.fields if field.folded]
        staged.describe(model_id, widths, training={}, model={"tolerance": 1e-5, "folded_fields": folded})


def _reference(serving: FeatureEncoder, known: set[str]) -> dict[str, Any]:
    """What training saw, had it been rows like those that are sent: a service compares its traffic with it."""
    generator = np.random.default_rng(4)
    rows = [random_row(generator) for _ in range(_REFERENCE_ROWS)]
    context = [{name: row[name] for name in CONTEXT if name in known} for row in rows]
    own = [{name: row[name] for name in OWN} for row in rows]
    ids = {"context": serving.encode_rows("context", context), "candidate": serving.encode_rows("candidate", own)}
    labels = (generator.random(len(rows)) < _BASE_RATE).astype(np.uint8)
    return reference_statistics(serving, ids, labels, generator.random(len(rows)))  # type: ignore[arg-type]


def _golden(encoder: FeatureEncoder, tower: FusedTower, serving: FeatureEncoder) -> list[GoldenRow]:
    """Rows scored by the tower as it was before any rule touched it."""
    generator = np.random.default_rng(3)
    known = {field.name for field in encoder.fields}
    rows = [random_row(generator) for _ in range(_GOLDEN_ROWS)]
    context = [{name: row[name] for name in CONTEXT if name in known} for row in rows]
    own = [{name: row[name] for name in OWN} for row in rows]
    scores = sigmoid(logits(tower, encoder.encode_rows("context", context), encoder.encode_rows("candidate", own)))
    ids = serving.encode_rows("context", context), serving.encode_rows("candidate", own)
    return [
        GoldenRow(context[n], own[n], ids[0][n].tolist(), ids[1][n].tolist(), float(scores[n]))
        for n in range(len(rows))
    ]


def write_plain_model(path: Path, tower: FusedTower) -> str:
    """Write the tower as one graph, `ids` int64 (N, 39) to `p` float (N, 1); ids are those of `job`.

    Returns:
        The form that was taken, the fastest on this machine.
    """
    # The formula of `job` has one row for what is missing or unseen, the encoder two equal ones.
    numbering = {field.name: range(1, field.rows) for field in tower.fields}
    forms = {
        form: to_single_input(tower, order=FIELDS, numbering=numbering, form=form).model for form in get_args(PlainForm)
    }
    generator = np.random.default_rng(5)
    ends = np.cumsum(list(rows_of_fields().values()))
    spent = dict.fromkeys(forms, 0.0)
    for rows in (1, 100, 1000):
        ids = [(generator.integers(0, ends[-1], (rows, len(FIELDS))) % ends) for _ in range(16)]
        feeds = [{"ids": one} for one in ids]
        runners = {form: (session(model.SerializeToString()), feeds) for form, model in forms.items()}
        times = interleaved_medians(runners, seconds=0.2)
        spent = {form: total + times[form] / min(times.values()) for form, total in spent.items()}
    fastest: PlainForm = min(forms, key=spent.__getitem__)
    path.write_bytes(forms[fastest].SerializeToString())
    return fastest
