"""Baselines of the library's layers on our ids, against loops, and their training against the library's own."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from prepared import make
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from benchmarks.accuracy import deep, logistic
from benchmarks.accuracy.baselines import BASELINES, EXTRAS, Baseline
from benchmarks.accuracy.baselines.base import feature_name
from benchmarks.accuracy.baselines.finalmlp import BilinearHeads, InteractionAggregation
from benchmarks.accuracy.baselines.finalnet import FinalNet
from benchmarks.accuracy.counts import exported_parameters
from benchmarks.accuracy.early import train
from benchmarks.accuracy.fitted import Place
from benchmarks.accuracy.graph.exporters import export
from benchmarks.accuracy.graph.onehot import OneHot
from benchmarks.accuracy.guard import by_recipe, compare
from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.plan import finished, followed, guarded
from benchmarks.accuracy.verdicts import MARGIN
from training.loader import PreparedData
from training.metrics import auc
from training.models.base import embed, field_slots, slot_ids
from training.phases.phase import NonFiniteLossError

SMALL = {"embedding_dim": 4, "hidden_units": [8, 6], "dropout": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return make(tmp_path_factory.mktemp("small") / "data")


def small(name: str, rows: int) -> dict[str, dict[str, object]]:
    config = MODELS[name].defaults("avazu-random", rows)
    model = {key: SMALL.get(key, value) for key, value in config["model"].items()}
    if "heads" in model:
        model |= {"heads": 2, "gate_units": [3]}
    return {"model": model, "train": {**config["train"], "batch_size": 128, "l2": 10.0, "rate": 0.01}}


def rows(data: PreparedData, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    split = data.split("train")
    return (
        torch.from_numpy(np.array(split.context_ids[:number])).long(),
        torch.from_numpy(np.array(split.candidate_ids[:number])).long(),
    )


def wake(model: Baseline) -> None:
    """Large values everywhere but in pads, so that nothing is lost in rounding."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0
    model.eval()


def tables(model: Baseline, layer: torch.nn.Module) -> list[torch.Tensor]:
    found = layer.embedding_layer.embedding_layers
    return [found[feature_name(place)].weight.detach() for place in range(len(model.slots))]


def vectors(model: Baseline, context: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    """(B, F, d) by our own look-up and pooling."""
    order = sorted(range(len(model.slots)), key=lambda i: (model.slots[i].pooling is not None, i))
    flat = embed(model.slots, tables(model, model.embedding_layer), context, candidate)
    parts = dict(zip(order, flat.split(flat.shape[1] // len(order), 1), strict=True))
    return torch.stack([parts[i] for i in range(len(order))], 1)


def linear(model: Baseline, layer: torch.nn.Module, context: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    """The library's linear part: weights of all values, those of a multi-valued field summed."""
    total = torch.zeros(len(candidate))
    for slot, table in zip(model.slots, tables(model, layer), strict=True):
        total += table[slot_ids(slot, context, candidate)].sum((1, 2))
    return total


@pytest.mark.parametrize("name", [*BASELINES, *EXTRAS])
def test_a_context_row_shared_by_all_scores_as_the_same_row_repeated(name: str, data: PreparedData) -> None:
    config = small(name, 3000)
    model = deep.new_module(name, data, config, seed=1)
    wake(model)
    context, candidate = rows(data, 20)
    shared = model(context[:1], candidate)
    assert shared.shape == (20,)
    torch.testing.assert_close(shared, model(context[:1].expand(20, -1), candidate))


def test_fm_is_the_sum_of_weights_and_of_all_inner_products(data: PreparedData) -> None:
    model = deep.new_module("FM", data, small("FM", 3000), seed=1)
    wake(model)
    context, candidate = rows(data, 50)
    e = vectors(model, context, candidate)
    pairs = sum((e[:, i] * e[:, j]).sum(1) for i, j in combinations(range(e.shape[1]), 2))
    expected = pairs + linear(model, model.fm.lr_layer.embedding_layer, context, candidate) + model.fm.lr_layer.bias
    torch.testing.assert_close(model(context, candidate), expected)


def test_fwfm_weighs_every_pair(data: PreparedData) -> None:
    model = deep.new_module("FwFM", data, small("FwFM", 3000), seed=1)
    wake(model)
    context, candidate = rows(data, 50)
    e = vectors(model, context, candidate)
    weight = model.interaction_weight_layer.weight[0]
    expected = linear(model, model.lr_layer.embedding_layer, context, candidate) + model.interaction_weight_layer.bias
    for number, (i, j) in enumerate(combinations(range(e.shape[1]), 2)):
        expected = expected + weight[number] * (e[:, i] * e[:, j]).sum(1)
    torch.testing.assert_close(model(context, candidate), expected)


@pytest.mark.parametrize(("width", "other", "heads"), [(8, 8, 1), (12, 12, 4), (6, 9, 3)])
def test_bilinear_heads_give_the_librarys_values_and_gradients(width: int, other: int, heads: int) -> None:
    torch.manual_seed(1)
    theirs = InteractionAggregation(width, other, output_dim=1, num_heads=heads).double()
    ours = BilinearHeads(width, other, output_dim=1, num_heads=heads).double()
    ours.load_state_dict(theirs.state_dict())
    streams = torch.randn(50, width, dtype=torch.float64), torch.randn(50, other, dtype=torch.float64)
    values, gradients = [], []
    for layer in (ours, theirs):
        x, y = (stream.clone().requires_grad_() for stream in streams)
        values.append(layer(x, y))
        leaves = [x, y, *(parameter for _, parameter in sorted(layer.named_parameters()))]
        gradients.append(torch.autograd.grad(values[-1].sin().sum(), leaves))
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)
    assert all(gradient.abs().min() > 0 for gradient in gradients[0])


def test_finalnet_is_the_mean_of_two_blocks_of_factorised_layers(data: PreparedData) -> None:
    model = deep.new_module("FinalNet", data, small("FinalNet", 3000), seed=1)
    assert isinstance(model, FinalNet)
    wake(model)
    context, candidate = rows(data, 30)
    e = vectors(model, context, candidate)
    B, F, d = e.shape
    gated = torch.zeros(B, F, d)
    for i in range(F):
        for j in range(F):
            gated[:, i] += model.gates.linear.weight[i, j] * e[:, j]
        gated[:, i] = e[:, i] * (gated[:, i] + model.gates.linear.bias[i])
    total = torch.zeros(B)
    for block, start in ((model.block1, torch.cat([e, gated], 1)), (model.block2, e)):
        x = start.reshape(B, -1)
        for layer, norm in zip(block[0:6:3], block[1:6:3], strict=True):
            h = x @ layer.linear.weight.T + layer.linear.bias
            half = h.shape[1] // 2
            x = torch.cat([h[:, :half], h[:, :half] * h[:, half:]], 1)
            x = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        total += 0.5 * (x @ block[-1].weight[0] + block[-1].bias)
    torch.testing.assert_close(model(context, candidate), total)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_our_trainer_comes_to_what_the_librarys_comes_to(name: str, data: PreparedData) -> None:
    config = guarded(small(name, data.split("train").rows))
    pair = compare(name, data, config, seed=1)
    label = data.split("valid").label
    assert auc(label, pair.library) > 0.55
    assert auc(label, pair.ours) == pytest.approx(auc(label, pair.library), abs=MARGIN)
    assert np.abs(pair.ours - pair.library).max() < 1e-4


def test_the_librarys_recipe_trains_to_its_own_end_with_dropout_and_norms(data: PreparedData) -> None:
    config = small("DNN", data.split("train").rows)
    config["model"] |= {"dropout": 0.3, "batch_norm": True}
    config["train"] |= {"epochs": 200, "rate": 0.01, "l2": 1.0}
    label = data.split("valid").label
    found = {}
    for name, change in (("whole", {}), ("again", {}), ("one", {"epochs": 1}), ("plain", {"dropout": 0.0})):
        changed = {part: {**config[part], **{k: v for k, v in change.items() if k in config[part]}} for part in config}
        found[name] = by_recipe("DNN", data, finished(changed), seed=1)
    np.testing.assert_array_equal(found["whole"], found["again"])
    assert auc(label, found["whole"]) > 0.55
    monitored = {name: auc(label, pctr) - log_loss(label, pctr) for name, pctr in found.items()}
    assert monitored["whole"] >= monitored["one"]  # the best of its epochs, among them the first
    assert np.abs(found["whole"] - found["plain"]).max() > 0.01


def test_a_trial_by_the_librarys_recipe_is_its_logits_with_slope_and_offset_fitted_on_validation(
    data: PreparedData,
) -> None:
    config = small("DNN", data.split("train").rows)
    config["train"] |= {"epochs": 200, "rate": 0.02, "l2": 0.1}
    place, valid = Place("avazu-random", data, Path(), test=False), data.split("valid")
    fitted = deep.fit("DNN", place, followed(config), seed=1)
    library = logit(by_recipe("DNN", data, finished(config), seed=1))
    slope, offset = fitted.facts["calibration"]
    np.testing.assert_allclose(logit(fitted.score(valid)), slope * library + offset, atol=1e-4)
    regression = LogisticRegression(C=1e6, tol=1e-9).fit(library[:, None], np.asarray(valid.label))
    assert slope == pytest.approx(regression.coef_[0, 0], abs=0.08)
    assert fitted.steps is not None
    an_epoch = -(-data.split("train").rows // 128)
    assert fitted.facts["best_step"] % an_epoch == 0
    assert an_epoch <= fitted.facts["best_step"] <= fitted.steps - 2 * an_epoch  # after two no better
    assert fitted.steps < 200 * an_epoch


def test_a_loss_of_the_librarys_recipe_that_is_no_number_is_told_as_ours_is(data: PreparedData) -> None:
    config = small("DNN", data.split("train").rows)
    config["train"] |= {"rate": 1e30, "epochs": 2}
    with pytest.raises(NonFiniteLossError, match="the library's trainer"):
        deep.fit("DNN", Place("avazu-random", data, Path(), test=False), followed(config), seed=1)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_logits_slope_and_offset_go_into_the_weights_that_a_model_has(name: str, data: PreparedData) -> None:
    model = deep.new_module(name, data, small(name, 3000), seed=1)
    wake(model)
    ids = rows(data, 40)
    before, count = model(*ids), deep.count(model)
    model.rescale(0.4, -1.5)
    torch.testing.assert_close(model(*ids), 0.4 * before - 1.5, rtol=1e-4, atol=1e-4)
    assert deep.count(model) == count


def test_a_calibrated_baseline_has_no_slope_or_offset_left_to_fit_on_validation(data: PreparedData) -> None:
    config = small("DNN", 3000)
    config["train"] |= {"calibrated": True, "epochs": 6, "rate": 0.03, "l2": 0.1, "patience": 30, "averaging": 0.0}
    config["model"]["dropout"] = 0.0
    place = Place("avazu-random", data, Path(), test=False)
    fitted = deep.fit("DNN", place, config, seed=1)
    valid = data.split("valid")
    pctr = fitted.score(valid)
    regression = LogisticRegression(C=1e6, tol=1e-9).fit(logit(pctr)[:, None], np.asarray(valid.label))
    assert regression.coef_[0, 0] == pytest.approx(1.0, abs=0.08)  # a weak prior holds it to what it was
    assert regression.intercept_[0] == pytest.approx(0.0, abs=0.08)
    slope, _ = fitted.facts["calibration"]
    assert 0.0 < slope < 0.95  # it had learnt by heart


def test_a_pads_row_stays_zero_whatever_is_trained(data: PreparedData) -> None:
    config = small("DNN", 3000)
    model = deep.new_module("DNN", data, config, seed=1)
    settings = {**config["train"], "epochs": 3, "averaging": 0.0}
    splits = data.split("train"), data.split("valid")
    trained = train(model, *splits, settings, context_columns=data.encoder.width("context"), seed=1)
    for slot, table in zip(model.slots, tables(model, model.embedding_layer), strict=True):
        assert table.abs().sum() > 0
        if slot.pad_id is not None:
            assert table[slot.pad_id].abs().max() == 0.0
    assert trained.steps > 0


def test_counts_are_those_of_a_tower_counted_by_hand(data: PreparedData) -> None:
    model = deep.new_module("DNN", data, small("DNN", 3000), seed=1)
    values = sum(slot.rows for slot in model.slots)
    width = 4 * len(model.slots)
    found = deep.count(model)
    assert found.embedding == 4 * values
    assert found.dense == width * 8 + 8 + 8 * 6 + 6 + 6 + 1
    assert found.training == found.inference + 2 * (8 + 6)  # batch norms, which are folded
    assert deep.flops(model) == 2 * (width * 8 + 8 * 6 + 6)


def test_logistic_regression_counts_what_its_graph_stores(data: PreparedData) -> None:
    config = MODELS["LR"].defaults("avazu-random", 3000)
    fitted = logistic.fit("LR", Place("avazu-random", data, Path(), test=False), config, seed=1)
    slots = field_slots(data.encoder, lambda *_: 1)
    stored = exported_parameters(export(OneHot(slots, np.ones(sum(slot.rows for slot in slots)), 0.5).eval()))
    assert fitted.parameters is not None
    assert (fitted.parameters.embedding, fitted.parameters.dense) == (stored.embedding, stored.dense)
    assert fitted.parameters.bytes == stored.bytes
