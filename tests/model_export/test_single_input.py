"""The form that general servers take is the very same model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from forms import SLOTS, random_form, random_ids

from model_export.errors import GraphError
from model_export.fusion import fold_embeddings, fuse_towers, logits
from model_export.latency import session
from model_export.parity import sigmoid
from model_export.single_input import to_single_input

if TYPE_CHECKING:
    from forms import Ids

    from model_export.fusion import FusedTower

IDS = random_ids(SLOTS, 64)


def summed() -> FusedTower:
    """A merged tower whose pooled fields are sums."""
    tower = fuse_towers(random_form())
    return replace(tower, fields=tuple(replace(field, pooling=field.pooling and "sum") for field in tower.fields))


def columns(tower: FusedTower, names: list[str]) -> Ids:
    """Local ids (N, F) in the order of the named fields."""
    fields = {field.name: field for field in tower.fields}
    cuts = []
    for name in names:
        field = fields[name]
        own = IDS[field.side == "candidate"]
        cuts.append(own[:, field.first : field.first + field.width])
    return np.concatenate(cuts, axis=1).astype(np.int64)


@pytest.mark.parametrize("form", ["padded", "folded"])
def test_one_matrix_of_global_ids_gets_the_scores_of_the_merged_tower(form: Literal["padded", "folded"]) -> None:
    tower = summed()
    made = to_single_input(tower, form=form)
    runner = session(made.model.SerializeToString())
    local = columns(tower, [field.name for field in tower.fields])
    found = runner.run(["p"], {"ids": local + made.offsets})[0]
    assert [(node.name, node.type) for node in runner.get_inputs()] == [("ids", "tensor(int64)")]
    assert found.shape == (64, 1)
    np.testing.assert_allclose(found[:, 0], sigmoid(logits(tower, *IDS)), rtol=0, atol=1e-6)


def test_columns_and_ids_of_another_encoder_are_read_as_it_numbers_them() -> None:
    tower = summed()
    names = sorted(field.name for field in tower.fields)
    numbering = {field.name: np.roll(np.arange(field.rows), 3) for field in tower.fields}
    made = to_single_input(tower, order=names, numbering={key: list(ids) for key, ids in numbering.items()})
    local = columns(tower, names)
    first = 0
    for name in names:
        width = next(field.width for field in tower.fields if field.name == name)
        own = local[:, first : first + width]
        own[...] = np.argsort(numbering[name])[own]
        first += width
    found = session(made.model.SerializeToString()).run(["p"], {"ids": local + made.offsets})[0]
    np.testing.assert_allclose(found[:, 0], sigmoid(logits(tower, *IDS)), rtol=0, atol=1e-6)


def test_what_the_form_cannot_say_is_refused() -> None:
    with pytest.raises(
        GraphError, match=r"field 'tags': expected a kept projection and a sum over columns, got a mean"
    ):
        to_single_input(fuse_towers(random_form()))
    with pytest.raises(GraphError, match=r"field 'user': expected a kept projection .*, got a folded one"):
        to_single_input(fold_embeddings(summed(), {"user"}))
    with pytest.raises(GraphError, match=r"order: expected the fields \['badges', .*\], each once, got \['user'\]"):
        to_single_input(summed(), order=["user"])
