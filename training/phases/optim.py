"""Optimisers: Adam for stacked tables that touches looked-up rows only, and a flat Adam for everything dense.

Shapes: R rows of a stack, d columns, n ids of a batch, U distinct rows among them.

Semantics of the tables' optimiser, row by row, at step t = 1, 2, ... (the *dense form*, to which a test holds it):

    g_t    = gradient of row r + l2 * k_t * w_{t-1}   if a batch reads r at step t, else 0
    m_t    = beta1 m_{t-1} + (1 - beta1) g_t
    v_t    = beta2 v_{t-1} + (1 - beta2) g_t^2
    w_t    = q w_{t-1} - [r was read] * rate_t * (m_t / (1 - beta1^t)) / (sqrt(v_t / (1 - beta2^t)) + epsilon)
    mean_t = delta mean_{t-1} + (1 - delta) w_t

with q = 1 - decay and k_t the steps since row r was read last, this one included: L2 is due at every step and paid
at the next read, so a rare row is shrunk as much as a frequent one and keeps less (as under a Gaussian prior).
It differs from Adam with decoupled decay (Loshchilov and Hutter, ICLR 2019) in that a row moves only at steps that
read it. So between two reads everything is a geometric series, and n missed steps are caught up in closed form at the
next read:

    m *= beta1^n,  v *= beta2^n,  mean = delta^n mean + (1 - delta) w sum_{k=1..n} delta^{n-k} q^k,  w *= q^n

`LazyAdam` does that: its step costs O(n), whatever R is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from training.phases.row_kernels import places, put_rows, room, sum_by_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class AdamSettings:
    """Constants of an optimiser.

    Attributes:
        beta1: Decay of the first moment a step.
        beta2: Decay of the second moment a step.
        epsilon: Added to the root of the second moment.
        l2: Added to the gradient, times the weight; for tables also times the steps since the row was read last.
        decay: Share of the weight lost a step, read or not (decoupled from the rate).
        averaging: delta, the decay of the weight average a step; 0 means no averaging.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    l2: float = 0.0
    decay: float = 0.0
    averaging: float = 0.98


@dataclass(frozen=True)
class Distinct:
    """The distinct rows of a batch: `rows` (U,) int64 and, for every id, its place in them: `place` (n,) int64."""

    rows: Tensor
    place: Tensor


class LazyAdam:
    """Adam over a stack of tables that reads and writes the rows of a batch only (semantics: see the module).

    A row's weight, moments and average lie side by side in one record, so a step is one gather and one scatter. In
    between they are taken apart: kernels are several times as fast on whole vectors as on pieces of d columns. What a
    step needs room for is kept for the next one, since fresh memory costs as much as the arithmetic.

    Args:
        weights: (R, d) initial values; copied.
        settings: The constants.
    """

    def __init__(self, weights: Tensor, settings: AdamSettings) -> None:
        R, d = weights.shape
        self.settings = settings
        self.dim = d
        self.step_number = 0
        self.records = room(R, 4 * d, like=weights)
        self.records[:, :d] = weights
        self.records[:, d : 3 * d] = 0.0
        self.records[:, 3 * d :] = weights
        self.caught_up = torch.zeros(R, dtype=torch.int32, device=weights.device)
        # Scratch: where in the batch a row was seen last. Never cleared: only what a batch wrote is read.
        self._seen = torch.zeros(R, dtype=torch.int32, device=weights.device)
        self._arrival = torch.empty(0, dtype=torch.int32, device=weights.device)
        self._batch: Distinct | None = None
        self._rooms: dict[str, Tensor] = {}
        self._parts = self._missed = torch.empty(0)

    def distinct(self, rows: Tensor) -> Distinct:
        """Find the distinct rows of a batch in O(n).

        Args:
            rows: (n,) int64 row numbers.
        """
        n = len(rows)
        if len(self._arrival) < n:
            self._arrival = torch.arange(n, dtype=torch.int32, device=rows.device)
        arrival = self._arrival[:n]
        self._seen.scatter_(0, rows, arrival)
        winner = self._seen.index_select(0, rows)
        first = winner == arrival
        place = torch.cumsum(first, 0).sub_(1).index_select(0, winner)
        return Distinct(rows.index_select(0, places(first)), place)

    def read(self, rows: Tensor) -> Tensor:
        """Start a step: catch the batch's rows up and return their weights (n, d), ready to take a gradient."""
        batch = self.distinct(rows)
        U, d = len(batch.rows), self.dim
        state = self._scratch("state", U, 4 * d, len(rows))
        torch.index_select(self.records, 0, batch.rows, out=state)
        parts = self._scratch("parts", 4 * U, d, 4 * len(rows)).view(4, U, d)
        parts.copy_(state.view(U, 4, d).transpose(0, 1))
        missed = self.step_number - self.caught_up.index_select(0, batch.rows)
        _catch_up(parts, missed, self.settings)
        self._batch, self._parts, self._missed = batch, parts, missed
        return parts[0].index_select(0, batch.place)

    def step(self, gradient: Tensor, rate: float) -> None:
        """End a step.

        Args:
            gradient: (n, d) of the loss by what `read` returned.
            rate: Learning rate of this step.
        """
        if self._batch is None:
            raise RuntimeError("step() without read()")
        s, d, batch = self.settings, self.dim, self._batch
        w, m, v, mean = self._parts
        U = len(batch.rows)
        self.step_number += 1
        total = sum_by_place(gradient.to(w.dtype), batch.place, U)
        if s.l2:
            total.addcmul_(w, (self._missed + 1).to(w.dtype)[:, None], value=s.l2)
        m.lerp_(total, 1.0 - s.beta1)
        v.mul_(s.beta2).addcmul_(total, total, value=1.0 - s.beta2)
        if s.decay:
            w.mul_(1.0 - s.decay)
        w.sub_(_direction(m, v, self.step_number, s, out=total), alpha=rate)
        mean.lerp_(w, 1.0 - s.averaging)
        state = self._scratch("state", U, 4 * d, len(batch.place))
        state.view(U, 4, d).copy_(self._parts.transpose(0, 1))
        put_rows(self.records, batch.rows, state)
        self.caught_up.index_fill_(0, batch.rows, self.step_number)
        self._batch = None

    def _scratch(self, name: str, rows: int, columns: int, most: int) -> Tensor:
        """Room for (rows, columns) values, the same memory at every step."""
        room = self._rooms.get(name)
        if room is None or room.numel() < rows * columns:
            room = self._rooms[name] = torch.empty(most * columns, dtype=self.records.dtype, device=self.records.device)
        return room[: rows * columns].view(rows, columns)

    def weights(self) -> Tensor:
        """Return the current weights (R, d): a pass over all rows."""
        return self._all(0)

    def averages(self) -> Tensor:
        """Return the averaged weights (R, d): a pass over all rows, for evaluation."""
        return self._all(3)

    def _all(self, part: int, block: int = 1 << 16) -> Tensor:
        R, d = len(self.records), self.dim
        out = torch.empty(R, d, dtype=self.records.dtype, device=self.records.device)
        for start in range(0, R, block):
            parts = self.records[start : start + block].view(-1, 4, d).transpose(0, 1).contiguous()
            _catch_up(parts, self.step_number - self.caught_up[start : start + block], self.settings)
            out[start : start + block] = parts[part]
        return out

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs besides the settings."""
        return {"records": self.records, "caught_up": self.caught_up, "step": torch.tensor(self.step_number)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`."""
        self.records.copy_(state["records"])
        self.caught_up.copy_(state["caught_up"])
        self.step_number = int(state["step"])


class FlatAdam:
    """AdamW with averaging over all dense parameters of a module, each quantity one flat vector.

    The parameters and the floating buffers become views of flat vectors, so a step is a dozen kernels however many
    layers there are. Buffers (batch norm's statistics) are not averaged: statistics of averaged weights are not
    averages of statistics, so whoever evaluates the average has to estimate them anew (`Phase` does).

    Args:
        module: Its parameters that require a gradient are trained; those that do not (tables) are left alone.
        settings: The constants; `l2` is added to the gradient, `decay` is decoupled.
        faster: Name prefix -> factor of the rate for the parameters under it.
    """

    def __init__(self, module: nn.Module, settings: AdamSettings, faster: Mapping[str, float] | None = None) -> None:
        self.settings = settings
        self.step_number = 0
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        parameters = [p for _, p in named]
        self._factors = _factors(named, faster or {})
        buffers = [b for b in module.buffers() if b.is_floating_point()]
        self.weights = _flatten(parameters)
        self.buffers = _flatten(buffers)
        self.gradient = torch.zeros_like(self.weights)
        self.m, self.v = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.mean = self.weights.clone()
        for p, piece in zip(parameters, _pieces(self.gradient, parameters), strict=True):
            p.grad = piece

    def zero(self) -> None:
        """Clear the gradient."""
        self.gradient.zero_()

    def step(self, rate: float) -> None:
        """Take one step by the gradients that were accumulated since `zero`."""
        s = self.settings
        self.step_number += 1
        g = self.gradient
        if s.l2:
            g.add_(self.weights, alpha=s.l2)
        self.m.lerp_(g, 1.0 - s.beta1)
        self.v.mul_(s.beta2).addcmul_(g, g, value=1.0 - s.beta2)
        if s.decay:
            self.weights.mul_(1.0 - s.decay)
        direction = _direction(self.m, self.v, self.step_number, s)
        if self._factors is not None:
            direction.mul_(self._factors)
        self.weights.sub_(direction, alpha=rate)
        self.mean.lerp_(self.weights, 1.0 - s.averaging)

    def put(self, weights: Tensor, buffers: Tensor) -> None:
        """Set all parameters and buffers."""
        self.weights.copy_(weights)
        self.buffers.copy_(buffers)

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs besides the settings."""
        names = ("weights", "buffers", "m", "v", "mean")
        return {**{name: getattr(self, name) for name in names}, "step": torch.tensor(self.step_number)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`."""
        for name, value in self.state().items():
            if name != "step":
                value.copy_(state[name])
        self.step_number = int(state["step"])


def _direction(m: Tensor, v: Tensor, step: int, s: AdamSettings, out: Tensor | None = None) -> Tensor:
    # m / c1 / (sqrt(v / c2) + epsilon), with the scalars pulled out of the vectors.
    c1, c2 = 1.0 - s.beta1**step, math.sqrt(1.0 - s.beta2**step)
    root = torch.sqrt(v, out=out).add_(s.epsilon * c2).mul_(c1 / c2)
    return torch.div(m, root, out=root)


def _catch_up(parts: Tensor, missed: Tensor, s: AdamSettings) -> None:
    """Bring weights, moments and averages (4, U, d) forward by `missed` (U,) steps without a read, in place."""
    n = missed.to(parts.dtype)[:, None]
    w, m, v, mean = parts
    m.mul_(_power(s.beta1, n))
    v.mul_(_power(s.beta2, n))
    keep, q = _power(s.averaging, n), 1.0 - s.decay
    if not s.decay:
        mean.lerp_(w, 1.0 - keep)
        return
    left = _power(q, n)
    series = n * left if math.isclose(q, s.averaging) else (left - keep) * (q / (q - s.averaging))
    mean.mul_(keep).add_(w * (series * (1.0 - s.averaging)))
    w.mul_(left)


def _power(base: float, n: Tensor) -> Tensor:
    return torch.exp(n * math.log(base)) if base > 0.0 else (n == 0).to(n.dtype)


def _factors(named: list[tuple[str, nn.Parameter]], faster: Mapping[str, float]) -> Tensor | None:
    if not faster:
        return None
    parts = [
        torch.full(
            (p.numel(),), next((f for prefix, f in faster.items() if name.startswith(prefix)), 1.0), device=p.device
        )
        for name, p in named
    ]
    return torch.cat(parts)


def _flatten(tensors: list[Tensor] | list[nn.Parameter]) -> Tensor:
    flat = torch.cat([t.detach().reshape(-1) for t in tensors]) if tensors else torch.zeros(0)
    for tensor, piece in zip(tensors, _pieces(flat, tensors), strict=True):
        tensor.data = piece
    return flat


def _pieces(flat: Tensor, like: Iterable[Tensor]) -> list[Tensor]:
    pieces, start = [], 0
    for tensor in like:
        pieces.append(flat[start : start + tensor.numel()].view(tensor.shape))
        start += tensor.numel()
    return pieces
