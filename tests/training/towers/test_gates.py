"""Field gates against their definition: sampling, the L0 term, closing."""

import math
from collections.abc import Iterator

import pytest
import torch

from training.models.base import FieldSlot
from training.towers.gates import HIGH, LOW, TEMPERATURE, FieldGates


def gates(*prior: float, parameters: tuple[float, ...] | None = None) -> FieldGates:
    names = [f"f{place}" for place in range(len(prior))]
    return FieldGates(names, prior, parameters or (1.0,) * len(prior))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(prior: float, times: int = 20_000) -> torch.Tensor:
    """Samples of one gate: as many gates, drawn once."""
    torch.manual_seed(0)
    return gates(*[prior] * times).train()().detach()


@pytest.mark.parametrize("prior", [-4.0, -1.5, 0.0, 1.0, 3.0])
def test_the_chance_of_an_open_gate_is_that_of_sampled_gates(prior: float) -> None:
    share = float((drawn(prior) > 0).float().mean())
    assert share == pytest.approx(float(gates(prior).open_chance().detach()), abs=0.015)


def test_the_penalty_is_the_expected_share_of_parameters_that_is_open() -> None:
    priors, parameters = (-2.0, 0.5, 2.0), (10.0, 200.0, 1.0)
    sampled = sum(
        float((drawn(prior) > 0).float().mean()) * cost / 211.0 for prior, cost in zip(priors, parameters, strict=True)
    )
    assert float(gates(*priors, parameters=parameters).penalty().detach()) == pytest.approx(sampled, abs=0.01)


def test_sampled_gates_reach_both_ends_and_between() -> None:
    values = drawn(0.0, 2000)
    assert float(values.min()) == 0.0
    assert float(values.max()) == 1.0
    assert 0.2 < float(((values > 0) & (values < 1)).float().mean()) < 0.9


def test_a_sampled_gate_is_the_stretched_and_cut_concrete_variable() -> None:
    model = gates(0.7)
    torch.manual_seed(5)
    value = float(model().detach())
    torch.manual_seed(5)
    u = float(torch.empty(1).uniform_(1e-6, 1 - 1e-6))
    s = 1 / (1 + math.exp(-(math.log(u) - math.log(1 - u) + 0.7) / TEMPERATURE))
    assert value == pytest.approx(min(1.0, max(0.0, s * (HIGH - LOW) + LOW)), abs=1e-6)


def test_evaluation_is_deterministic_and_uses_no_noise() -> None:
    model = gates(-3.0, 0.0, 5.0).eval()
    first = model()
    assert torch.equal(first, model())
    assert first.tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert not torch.equal(model.train()(), model.train()())


def test_fields_whose_gate_is_zero_in_evaluation_are_closed() -> None:
    # Zero from sigmoid(a) = 1/12 down, a = -ln 11.
    edge = -math.log(11.0)
    assert gates(edge - 0.01, edge + 0.01, 4.0).closed() == {"f0"}


def test_the_penalty_pushes_dear_fields_harder() -> None:
    model = gates(0.0, 0.0, parameters=(1.0, 9.0))
    model.penalty().backward()
    gradient = model.log_odds.grad
    assert gradient is not None
    assert gradient.tolist()[1] == pytest.approx(9 * gradient.tolist()[0])
    assert min(gradient.tolist()) > 0


def test_training_closes_a_useless_field_and_opens_a_useful_one() -> None:
    torch.manual_seed(1)
    x = torch.randn(2000, 2)
    y = (torch.rand(2000) < torch.sigmoid(2 * x[:, 0])).float()
    model, weights = gates(1.0, 1.0), torch.nn.Parameter(torch.full((2,), 0.1))
    optimizer = torch.optim.Adam([*model.parameters(), weights], lr=0.05)
    for _ in range(300):
        logits = (x * model() * weights).sum(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y) + 0.05 * model.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.closed() == {"f1"}
    assert float(model.eval()()[0].detach()) > 0.9


def test_gates_of_slots_are_priced_by_table_and_projection() -> None:
    slots = [
        FieldSlot("small", "context", 0, 1, rows=10, dim=2),
        FieldSlot("large", "candidate", 0, 1, rows=1000, dim=4),
    ]
    model = FieldGates.for_slots(slots, {"large": 1.0, "small": -1.0}, width=64)
    assert model.names == ("small", "large")
    assert model.log_odds.tolist() == [-1.0, 1.0]
    total = 2 * 74 + 4 * 1064
    assert model.price.tolist() == pytest.approx([2 * 74 / total, 4 * 1064 / total])


def test_gates_survive_a_state_and_refuse_what_does_not_fit() -> None:
    model, other = gates(0.3, -1.0), gates(0.0, 0.0, parameters=(3.0, 1.0))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.log_odds, model.log_odds)
    assert torch.equal(other.price, model.price)
    with pytest.raises(ValueError, match="2 names, 1 priors, 2 numbers"):
        FieldGates(["a", "b"], [0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="expected positive numbers of parameters"):
        FieldGates(["a"], [0.0], [0.0])
