"""A small bundle with every kind of field, table and file there is, so that each gets its share of the damage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.reliability.endless import make_endless
from model_export.fusion import FusedTower, FusionFacts, fuse, logits
from model_export.fusion.layout import SIDES
from model_export.fusion.tower import Dense, FusedField
from model_export.graph import save
from model_export.parity import sigmoid
from model_export.passes import TABLE_PASSES, apply_passes, apply_table_pass
from model_export.to_onnx import to_onnx
from model_export.variants import variant_file
from service.bundle import MODEL_FILE, GoldenRow, Inputs, VariantFacts, write_bundle
from service.features import CategoricalField, FeatureEncoder, MultiValuedField, NumericField, Vocabulary
from service.features.vocabulary import HashedVocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from service.features import Field
    from service.features.vocabulary import AnyVocabulary

__all__ = ["write_small_bundle"]

_WIDTH: Final = 8
_DIM: Final = 4
_TOLERANCE: Final = 1e-5
_TOLERANCES: Final = {"float16": 5e-3, "int8": 5e-2}
_CONTEXTS: Final[tuple[dict[str, Any], ...]] = (
    {"user": "u3", "hour": 14, "tags": "t1|t2|t9"},
    {"user": "nobody", "tags": ["t0"], "page": "/home"},
    {},
)
_CANDIDATES: Final[tuple[dict[str, Any], ...]] = ({"ad": "a1", "price": 3.5}, {"ad": "a7", "price": 0}, {"price": "19"})


def _encoder(ads: int) -> FeatureEncoder:
    fields: list[Field] = [
        CategoricalField("user", "context"),
        NumericField("hour", "context", edges=(6.0, 12.0, 18.0)),
        MultiValuedField("tags", "context", max_values=3, pooling="mean"),
        CategoricalField("page", "context"),
        CategoricalField("ad", "candidate"),
        NumericField("price", "candidate", edges=(0.5, 2.0, 8.0)),
    ]
    vocabularies: dict[str, AnyVocabulary] = {
        "user": Vocabulary([f"u{number}" for number in range(20)]),
        "hour": Vocabulary([str(bucket) for bucket in range(4)]),
        "tags": Vocabulary([f"t{number}" for number in range(5)], reserved=MultiValuedField.reserved),
        "page": HashedVocabulary(16),
        "ad": Vocabulary([f"a{number}" for number in range(ads)]),
        "price": Vocabulary([str(bucket) for bucket in range(4)]),
    }
    return FeatureEncoder(fields, vocabularies)


def _tower(encoder: FeatureEncoder, seed: int) -> FusedTower:
    generator = np.random.default_rng(seed)
    fields = []
    for side in SIDES:
        for column in encoder.columns(side):
            table = generator.normal(0, 0.5, (len(encoder.vocabulary(column.name)), _DIM)).astype(np.float32)
            several = isinstance(encoder.field(column.name), MultiValuedField)
            if several:
                table[2] = 0.0  # the pad
            fields.append(
                FusedField(
                    name=column.name,
                    side=side,
                    first=column.first,
                    width=column.width,
                    table=table,
                    projection=generator.normal(0, 0.5, (_DIM, _WIDTH)),
                    pooling="mean" if several else None,
                    pad_id=2 if several else None,
                )
            )
    output = Dense(generator.normal(0, 0.5, (_WIDTH, 1)), np.array([-1.0]))
    return FusedTower(fields=tuple(fields), bias=generator.normal(0, 0.1, _WIDTH), layers=(), output=output)


_REFERENCE: Final[dict[str, Any]] = {
    "format": "reaction-reference",
    "version": 1,
    "rows": 100,
    "base_rate": 0.25,
    "mean_score": 0.25,
    "score_histogram": {"edges": [0.0, 0.5, 1.0], "counts": [60, 40]},
    "fields": {
        "user": {
            "missing": 0.125,
            "out_of_vocabulary": 0.0625,
            "histogram": {"ids": [0, 1, 2], "counts": [12, 6, 20], "other": 62},
        }
    },
}


def write_small_bundle(
    path: Path,
    *,
    model_id: str = "small",
    seed: int = 11,
    ads: int = 12,
    reference: Mapping[str, Any] = _REFERENCE,
    endless_above: int | None = None,
) -> None:
    """Write it, through the export's own passes: in every precision, tables beside their graphs and within.

    Args:
        path: Must not exist.
        model_id: Its name.
        seed: Of its weights.
        ads: Values that the vocabulary of one field holds.
        reference: What training saw, or is said to have seen.
        endless_above: It never ends where there are more candidates; None for never.
    """
    known = _encoder(ads)
    fused = fuse(_tower(known, seed), FusionFacts())
    encoder = FeatureEncoder(
        [known.field(field.name) for field in fused.fields],
        {field.name: known.vocabulary(field.name) for field in fused.fields},
    )
    graph = apply_passes(to_onnx(fused))
    contexts = [row for row in _CONTEXTS for _ in _CANDIDATES]
    candidates = [row for _ in _CONTEXTS for row in _CANDIDATES]
    ids = encoder.encode_rows("context", contexts), encoder.encode_rows("candidate", candidates)
    scores = sigmoid(logits(fused, *ids))
    with write_bundle(path) as staged:
        save(graph, staged.path / MODEL_FILE, external_above=0)
        if endless_above is not None:
            make_endless(staged.path / MODEL_FILE, endless_above)
        facts = {}
        for precision in TABLE_PASSES:
            name = variant_file(precision)
            inside = precision == "float16"  # tables in the graph itself are read by other code
            save(apply_table_pass(graph, precision), staged.path / name, external_above=1 << 30 if inside else 0)
            facts[precision] = VariantFacts(
                file=name,
                tolerance=_TOLERANCES[precision],
                parity=0.0,
                rows=0,
                auc_change=0.0,
                log_loss_change=0.0,
                bytes=0,
                bytes_ratio=1.0,
                time_ratio={},
            )
        staged.write_encoder(encoder)
        staged.write_golden(
            GoldenRow(context, candidate, ids[0][n].tolist(), ids[1][n].tolist(), float(scores[n]))
            for n, (context, candidate) in enumerate(zip(contexts, candidates, strict=True))
        )
        staged.write_reference(reference)
        widths = Inputs(context_ids=encoder.width("context"), candidate_ids=encoder.width("candidate"))
        model = {"tolerance": _TOLERANCE, "folded_fields": []}
        staged.describe(model_id, widths, training={"metrics": {}}, model=model, variants=facts)
