"""Encoded columns for tests of AFE, without files: ids as the encoder gives them, and planted truths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.field_selection.field_views import MeasuredSlot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.datasets.synthetic import SyntheticData

PAD = 2


def ids_of(texts: Sequence[str], reserved: int, min_count: int = 2) -> tuple[np.ndarray, int]:
    """Ids (N,) by falling count from `reserved` on, 0 for "", 1 for rare ones; and the number of ids."""
    values, inverse, count = np.unique(np.asarray(texts, dtype=str), return_inverse=True, return_counts=True)
    ids = np.ones(values.size, np.int32)
    kept = [place for place in np.argsort(-count, kind="stable") if count[place] >= min_count and values[place]]
    ids[kept] = np.arange(reserved, reserved + len(kept))
    ids[values == ""] = 0
    return ids[inverse], reserved + len(kept)


def slots_and_ids(columns: Mapping[str, np.ndarray]) -> tuple[list[MeasuredSlot], np.ndarray, np.ndarray]:
    """Fields of given codes (N,), all on the candidate side: slots, no context ids (N, 0), candidate ids (N, F)."""
    slots = [
        MeasuredSlot(name, "candidate", place, 1, int(codes.max()) + 1)
        for place, (name, codes) in enumerate(columns.items())
    ]
    candidate = np.stack(list(columns.values()), 1).astype(np.int32)
    return slots, np.zeros((candidate.shape[0], 0), np.int32), candidate


def encode(data: SyntheticData, rows: np.ndarray) -> tuple[list[MeasuredSlot], np.ndarray, np.ndarray]:
    """Rows of a generated log as prepared data has them: slots, context ids, candidate ids."""
    slots: list[MeasuredSlot] = []
    columns: dict[str, list[np.ndarray]] = {"context": [], "candidate": []}
    for field in data.fields:
        texts = data.frame[field.name].fill_null("").gather(rows).to_list()
        if field.kind == "multi_valued":
            lists = [[tag for tag in text.split("|") if tag] for text in texts]
            flat, size = ids_of([tag for tags in lists for tag in tags], PAD + 1)
            ids = np.full((len(texts), field.max_values), PAD, np.int32)
            length = np.array([len(tags) for tags in lists])
            ids[np.arange(field.max_values) < length[:, None]] = flat
            ids[length == 0, 0] = 0
        else:
            if field.kind == "numeric":
                texts = [text and str(int(np.log(max(float(text), 1.0)) ** 2)) for text in texts]
            flat, size = ids_of(texts, 2)
            ids = flat[:, None]
        side = columns[field.side]
        pad = PAD if field.kind == "multi_valued" else None
        first = sum(block.shape[1] for block in side)
        slots.append(MeasuredSlot(field.name, field.side, first, ids.shape[1], size, pad))
        side.append(ids)
    return slots, np.concatenate(columns["context"], 1), np.concatenate(columns["candidate"], 1)
