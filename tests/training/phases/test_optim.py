"""Lazy rows against the dense form, stacks against single tables, and cost that does not grow with the rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import CANDIDATE_COLUMNS, CONTEXT_COLUMNS, SLOTS, some_ids
from torch.utils._python_dispatch import TorchDispatchMode

from training.models.base import embed
from training.phases.optim import AdamSettings, FlatAdam, LazyAdam
from training.phases.tables import TableBank

R, D = 23, 3


def dense_step(
    state: dict[str, torch.Tensor],
    gradient: torch.Tensor,
    read: torch.Tensor,
    *,
    rate: float,
    step: int,
    constants: AdamSettings,
) -> None:
    """Take a step of the dense form that the module's docstring sets out, in place.

    Args:
        state: "w", "m", "v", "mean", each (R, d), and "last" (R, 1), the step that read a row last (0: none did).
        gradient: (R, d) of the loss.
        read: (R,) bool, the rows that the batch read.
        rate: Learning rate.
        step: t, from 1.
        constants: The constants.
    """
    s, w = constants, state["w"]
    g = torch.where(read[:, None], gradient + s.l2 * (step - state["last"]) * w, 0.0)
    state["last"] = torch.where(read[:, None], step, state["last"])
    state["m"] = s.beta1 * state["m"] + (1.0 - s.beta1) * g
    state["v"] = s.beta2 * state["v"] + (1.0 - s.beta2) * g * g
    direction = (state["m"] / (1.0 - s.beta1**step)) / ((state["v"] / (1.0 - s.beta2**step)).sqrt() + s.epsilon)
    move = torch.where(read[:, None], rate * direction, 0.0)
    state["w"] = (1.0 - s.decay) * w - move
    state["mean"] = s.averaging * state["mean"] + (1.0 - s.averaging) * state["w"]


def draw_batch(generator: torch.Generator, step: int) -> torch.Tensor:
    # Few rows most of the time and all of them now and then: gaps of many lengths.
    high = R if step % 40 == 0 else 4
    return torch.randint(0, high, (6,), generator=generator)


@pytest.mark.parametrize(
    "constants",
    [
        AdamSettings(),
        AdamSettings(l2=0.02, averaging=0.9),
        AdamSettings(decay=0.01, l2=0.003),
        AdamSettings(decay=0.02, averaging=0.98),  # q = delta: the series' own limit
        AdamSettings(averaging=0.0, beta1=0.0),
        AdamSettings(epsilon=1e-3, beta2=0.99),
    ],
)
def test_lazy_rows_equal_the_dense_form_at_every_step(constants: AdamSettings) -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(R, D, dtype=torch.float64, generator=generator)
    lazy = LazyAdam(start, constants)
    zeros = torch.zeros_like(start)
    dense = {"w": start.clone(), "m": zeros, "v": zeros, "mean": start.clone(), "last": torch.zeros(R, 1)}
    for step in range(1, 201):
        rows = draw_batch(generator, step)
        assert torch.allclose(lazy.read(rows), dense["w"][rows], atol=1e-12)
        gradient = torch.randn(6, D, dtype=torch.float64, generator=generator)
        rate = 0.05 / step**0.5
        lazy.step(gradient, rate)
        read = torch.zeros(R, dtype=torch.bool)
        read[rows] = True
        whole = torch.zeros_like(start).index_add_(0, rows, gradient)
        dense_step(dense, whole, read, rate=rate, step=step, constants=constants)
        assert torch.allclose(lazy.weights(), dense["w"], atol=1e-12)
        assert torch.allclose(lazy.averages(), dense["mean"], atol=1e-12)


def test_the_dense_form_is_torch_adamw_where_every_row_is_read_every_step() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(R, D, dtype=torch.float64))
    lazy = LazyAdam(weight.detach(), AdamSettings(l2=0.1, decay=0.002))
    theirs = torch.optim.Adam([weight], lr=0.01, weight_decay=0.1)
    for _ in range(50):
        gradient = torch.randn(R, D, dtype=torch.float64)
        weight.grad = gradient.clone()
        with torch.no_grad():
            before = weight.clone()
        theirs.step()
        with torch.no_grad():
            weight -= 0.002 * before
        lazy.read(torch.arange(R))
        lazy.step(gradient, 0.01)
    assert torch.allclose(lazy.weights(), weight, atol=1e-10)


def test_the_average_is_the_geometric_mean_over_all_steps() -> None:
    lazy = LazyAdam(torch.ones(2, 1, dtype=torch.float64), AdamSettings(averaging=0.9))
    seen = [lazy.weights()]
    for _ in range(8):
        lazy.read(torch.tensor([0]))
        lazy.step(torch.ones(1, 1, dtype=torch.float64), 0.1)
        seen.append(lazy.weights())
    expected = 0.9**8 * seen[0] + sum(0.1 * 0.9 ** (8 - i) * seen[i] for i in range(1, 9))
    assert torch.allclose(lazy.averages(), expected)


@given(st.lists(st.integers(0, R - 1), min_size=1, max_size=40), st.lists(st.integers(0, R - 1), max_size=40))
@settings(max_examples=60, deadline=None)
def test_distinct_rows_are_what_unique_finds(first: list[int], second: list[int]) -> None:
    lazy = LazyAdam(torch.zeros(R, 1), AdamSettings())
    for ids in (first, second or first):  # twice: the scratch is not cleared between batches
        rows = torch.tensor(ids)
        found = lazy.distinct(rows)
        assert torch.equal(found.rows[found.place], rows)
        assert sorted(found.rows.tolist()) == sorted(set(ids))


def test_gradients_of_one_row_read_many_times_add_up() -> None:
    once, often = (LazyAdam(torch.ones(3, 2), AdamSettings()) for _ in range(2))
    once.read(torch.tensor([1]))
    once.step(torch.full((1, 2), 6.0), 0.1)
    often.read(torch.tensor([1, 1, 1]))
    often.step(torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), 0.1)
    assert torch.equal(once.weights(), often.weights())


def test_a_step_without_a_read_is_refused() -> None:
    with pytest.raises(RuntimeError, match="without read"):
        LazyAdam(torch.zeros(2, 2), AdamSettings()).step(torch.zeros(1, 2), 0.1)


def test_a_restored_optimiser_goes_on_bit_by_bit() -> None:
    constants = AdamSettings(l2=0.01, decay=1e-4)
    start = torch.randn(R, D, generator=torch.Generator().manual_seed(2))

    def train(lazy: LazyAdam, first: int, last: int) -> None:
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            lazy.read(draw_batch(generator, step))
            lazy.step(torch.randn(6, D, generator=generator), 0.01)

    whole, half, rest = (LazyAdam(start, constants) for _ in range(3))
    train(whole, 0, 60)
    train(half, 0, 31)
    rest.load({name: value.clone() for name, value in half.state().items()})
    train(rest, 31, 60)
    assert torch.equal(whole.records, rest.records)
    assert torch.equal(whole.averages(), rest.averages())


def test_flat_adam_equals_torch_adamw_and_averages_every_step() -> None:
    torch.manual_seed(0)
    ours, theirs = (
        torch.nn.Sequential(
            torch.nn.Linear(4, 5, bias=False), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 1)
        ).double()
        for _ in range(2)
    )
    theirs.load_state_dict(ours.state_dict())
    flat = FlatAdam(ours, AdamSettings(decay=0.01 * 0.1, averaging=0.9))
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    mean = [p.detach().clone() for p in theirs.parameters()]
    for _ in range(30):
        x = torch.randn(16, 4, dtype=torch.float64)
        for model in (ours, theirs):
            if model is ours:
                flat.zero()
            else:
                reference.zero_grad()
            model(x).square().mean().backward()
        flat.step(0.01)
        reference.step()
        mean = [0.9 * m + 0.1 * p.detach() for m, p in zip(mean, theirs.parameters(), strict=True)]
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-9)
    assert torch.allclose(flat.mean, torch.cat([m.reshape(-1) for m in mean]), atol=1e-9)


def test_flat_adam_leaves_what_needs_no_gradient_alone() -> None:
    module = torch.nn.Linear(3, 2)
    module.bias.requires_grad_(requires_grad=False)
    before = module.bias.detach().clone()
    flat = FlatAdam(module, AdamSettings(decay=0.1))
    module(torch.ones(1, 3)).sum().backward()
    flat.step(0.1)
    assert torch.equal(module.bias, before)
    assert len(flat.weights) == 6


def test_a_bank_reads_what_the_tables_hold_and_gets_their_gradient() -> None:
    torch.manual_seed(0)
    tables = [torch.randn(slot.rows, slot.dim, dtype=torch.float64) for slot in SLOTS]
    for slot, table in zip(SLOTS, tables, strict=True):
        if slot.pad_id is not None:
            table[slot.pad_id] = 0.0
    constants = AdamSettings(l2=0.01)
    bank = TableBank(
        SLOTS, tables, constants, context_columns=CONTEXT_COLUMNS, total_columns=CONTEXT_COLUMNS + CANDIDATE_COLUMNS
    )
    dense = [table.clone().requires_grad_() for table in tables]
    states = [
        {"w": t.detach(), "m": t * 0, "v": t * 0, "mean": t.detach(), "last": torch.zeros(len(t), 1)} for t in tables
    ]
    for step in range(1, 6):
        context, candidate = some_ids(7, seed=step)
        ids = torch.cat([context, candidate], 1)
        x = bank.read(ids)
        y = embed(SLOTS, dense, context, candidate)
        assert torch.allclose(x, y, atol=1e-12)
        target = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(step))
        (x * target).sum().backward()
        bank.step(0.05)
        gradients = torch.autograd.grad((y * target).sum(), dense)
        for slot, state, gradient in zip(SLOTS, states, gradients, strict=True):
            columns = (context if slot.side == "context" else candidate)[:, slot.first : slot.first + slot.width]
            read = torch.zeros(slot.rows, dtype=torch.bool)
            read[columns.long().reshape(-1)] = True
            dense_step(state, gradient, read, rate=0.05, step=step, constants=constants)
        dense = [state["w"].clone().requires_grad_() for state in states]
    for table, state in zip(bank.tables(bank.averages()), states, strict=True):
        assert torch.allclose(table, state["mean"], atol=1e-12)
    for slot, table in zip(SLOTS, bank.tables([o.weights() for o in bank.optimisers]), strict=True):
        if slot.pad_id is not None:
            assert not table[slot.pad_id].any()
    assert torch.allclose(
        bank.look_up([o.weights() for o in bank.optimisers], ids), embed(SLOTS, dense, context, candidate)
    )


class Touched(TorchDispatchMode):
    """Counts the values that operations make, and of those in place the values that they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, torch.Tensor) else torch.empty(0)
        if any(made.data_ptr() == given.data_ptr() for given in args if isinstance(given, torch.Tensor)):
            # In place or a view: what is given beside the target says how much of it is written.
            rest = [given.numel() for given in args[1:] if isinstance(given, torch.Tensor)]
            made = torch.empty(max(rest, default=0), device="meta")
        self.values += made.numel()
        return out


def test_a_step_touches_as_many_values_however_many_rows_the_table_has() -> None:
    def touched(rows: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        lazy = LazyAdam(torch.ones(rows, 4), AdamSettings(l2=1e-4, decay=1e-4))
        batches = [torch.randint(0, 300, (500,), generator=generator) for _ in range(3)]
        gradient = torch.randn(500, 4, generator=generator)
        for batch in batches[:2]:  # room for a step is made in the first
            lazy.read(batch)
            lazy.step(gradient, 0.01)
        before = lazy.records.clone()
        with Touched() as count:
            lazy.read(batches[2])
            lazy.step(gradient, 0.01)
        return count.values, torch.nonzero((lazy.records != before).any(1))[:, 0], batches[2].unique()

    few, many = touched(1000), touched(1_000_000)
    assert few[0] == many[0] > 500 * 4
    for _, changed, read in (few, many):
        assert torch.equal(changed, read)


def test_evaluation_alone_passes_over_all_rows() -> None:
    lazy = LazyAdam(torch.zeros(5000, 2), AdamSettings())
    with Touched() as count:
        lazy.averages()
    assert count.values > 5000 * 2
