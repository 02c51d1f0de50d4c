"""REACTION's towers: two towers here both see the whole row (FinalMLP's two streams), not user/item retrieval.

Source: Wu, Du, Jia, Dong, "REACTION: Parameter-Efficient Learning for Recommendation", AAAI 2026, 40(19). The dual
form (`TowerPair`) and the fusion form (`FusionForm`) are our reading of its Dynamic Tower Fusion (DTF); the first layer
is its Adaptive Feature Extraction (AFE): z = sum_f g_f P_f e_f(x_f).

Shapes: B rows, F slots, D = sum of d_f, H_l width of hidden layer l = 0..L-1; K = H_0 is AFE's subspace, so that
P_f (d_f, K) *is* the first dense layer, and a sum of look-ups once the tables are folded.
"""

from copy import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor, nn

from training.models.activation import rectified
from training.models.base import FieldSlot, embed, embedding_order

if TYPE_CHECKING:
    from collections.abc import Sequence


class Branch(nn.Module):
    """All of a tower but its tables; also one of the two parallel branches of the fusion form.

    Args:
        slots: The fields.
        widths: H_0..H_{L-1}.
        mix: Weight of this branch in the fusion form.
        linked: With cross links; a branch of the fusion form.

    State: `gates` (F,), `projections.<i>` (d_f, H_0), `quadratic` (H_0,), `norms.<l>`, `linears.<l>`, `output`, `mix`;
    of a linked branch `cross.<l>` too (bias free, zero until trained: a link into layer l+1, added after its norm).

    The logit reads the projected units z twice: through the layers, and as sum_k q_k z_k^2 (`quadratic`). As z is a sum
    over fields, the latter is sum_{f,g} e_f' P_f diag(q) P_g' e_g: every pair of fields interacts by a bilinear form of
    rank K, and no pair is ever formed. Source: the square of a sum as in factorisation machines (Rendle, ICDM 2010),
    with signed weights.
    """

    gates: Tensor
    mix: Tensor

    def __init__(
        self, slots: "Sequence[FieldSlot]", widths: "Sequence[int]", *, mix: float = 0.5, linked: bool = False
    ) -> None:
        super().__init__()
        K = widths[0]
        # The scale of a linear layer that reads the whole embedded row (He's uniform bound, as torch's Linear).
        bound = 1.0 / max(1, sum(slot.dim for slot in slots)) ** 0.5
        self.register_buffer("gates", torch.ones(len(slots)))
        self.projections = nn.ParameterList(
            [nn.Parameter(torch.empty(slot.dim, K).uniform_(-bound, bound)) for slot in slots]
        )
        self.quadratic = nn.Parameter(torch.zeros(K))
        self.norms = nn.ModuleList([nn.BatchNorm1d(H) for H in widths])
        pairs = list(pairwise(widths))
        self.linears = nn.ModuleList([nn.Linear(H, G) for H, G in pairs])
        self.cross = nn.ModuleList([nn.Linear(H, G, bias=False) for H, G in pairs if linked])
        for link in self.cross:
            nn.init.zeros_(link.weight)  # type: ignore[arg-type]
        self.output = nn.Linear(widths[-1], 1)
        self.register_buffer("mix", torch.tensor(mix))
        self._order = embedding_order(slots)
        self._dims = tuple(slots[i].dim for i in self._order)
        self._owners = [i for i in self._order for _ in range(slots[i].dim)]  # column of the embedded row -> its slot

    @property
    def norm_layers(self) -> list[nn.BatchNorm1d]:
        """The batch norms, typed."""
        return cast("list[nn.BatchNorm1d]", list(self.norms))

    @property
    def linear_layers(self) -> list[nn.Linear]:
        """The linear layers between hidden layers, typed."""
        return cast("list[nn.Linear]", list(self.linears))

    @property
    def cross_layers(self) -> list[nn.Linear]:
        """The cross links, typed."""
        return cast("list[nn.Linear]", list(self.cross))

    def weight(self, gates: Tensor | None = None) -> Tensor:
        """Return the first dense layer (D, H_0): g_f P_f stacked in embedding order."""
        gates = self.gates if gates is None else gates
        owners = torch.tensor(self._owners, device=gates.device)
        return torch.cat([self.projections[i] for i in self._order]) * gates.index_select(0, owners)[:, None]

    def first(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """Return the normalised projection (B, H_0) of the embedded row x (B, D)."""
        return self.norms[0](x @ self.weight(gates))  # type: ignore[no-any-return]

    def hidden(self, layer: int, h: Tensor) -> Tensor:
        """Return norm_{l+1}(linear_l(h)) (B, H_{l+1})."""
        return self.norms[layer + 1](self.linears[layer](h))  # type: ignore[no-any-return]

    def logit(self, h: Tensor, z: Tensor) -> Tensor:
        """Return the logits (B,) of the last hidden units h (B, H_{L-1}) and the projected units z (B, H_0)."""
        return self.output(h)[:, 0] + z.square() @ self.quadratic  # type: ignore[no-any-return]


class Tower(nn.Module):
    """One tower: its own tables, AFE's projection into R^K, then BN-ReLU-Dropout-Linear to a logit.

    Args:
        slots: The fields.
        widths: H_0..H_{L-1}.
        dropout: Probability of dropping a hidden unit while training.
        table_scale: Standard deviation of the tables' initial values.
    """

    def __init__(
        self,
        slots: "Sequence[FieldSlot]",
        widths: "Sequence[int]",
        *,
        dropout: float = 0.0,
        table_scale: float = 1e-2,
    ) -> None:
        super().__init__()
        self.slots = tuple(slots)
        self.widths = tuple(widths)
        self.dropout = dropout
        self.tables = _tables(slots, table_scale)
        self.body = Branch(slots, widths)

    def head(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """Return logits (B,) of embedded rows x (B, D)."""
        z = self.body.first(x, gates)
        h = self.activate(z)
        for layer in range(len(self.widths) - 1):
            h = self.activate(self.body.hidden(layer, h))
        return self.body.logit(h, z)

    def activate(self, pre: Tensor) -> Tensor:
        """Return dropout(relu(pre))."""
        return rectified(pre, self.dropout if self.training else 0.0)

    def forward(self, context_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return logits (B,) of id matrices (B|1, Cc) and (B, Ci)."""
        return self.head(embed(self.slots, list(self.tables), context_ids, candidate_ids))


class TowerPair(nn.Module):
    """The dual form: two towers with tables and seeds of their own, which become one.

    Args:
        a: Tower A.
        b: Tower B.
        council: Further towers, which teach with the pair and are merged into nothing.
    """

    def __init__(self, a: Tower, b: Tower, council: "Sequence[Tower]" = ()) -> None:
        super().__init__()
        if any(tower.slots != a.slots or tower.widths != a.widths for tower in (b, *council)):
            raise ValueError("a pair's towers must have the same slots and widths")
        self.slots = a.slots
        self.widths = a.widths
        self.towers = nn.ModuleList([a, b, *council])

    @property
    def all(self) -> "tuple[Tower, ...]":
        """All towers, the fusion phase's teachers."""
        return cast("tuple[Tower, ...]", tuple(self.towers))

    @property
    def council(self) -> "tuple[Tower, ...]":
        """The towers beside A and B."""
        return self.all[2:]

    @property
    def a(self) -> Tower:
        """Tower A."""
        return self.towers[0]  # type: ignore[return-value]

    @property
    def b(self) -> Tower:
        """Tower B."""
        return self.towers[1]  # type: ignore[return-value]

    def first(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return both towers' projected units (B, H_0) of rows embedded by A's (x) and B's (y) tables."""
        return self.a.body.first(x), self.b.body.first(y)

    def hidden(self, u: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return both towers' hidden units (B, H_l) of every layer, from A's (u) and B's (v) projected units."""
        a, b = self.a, self.b
        found = [(a.activate(u), b.activate(v))]
        for layer in range(len(self.widths) - 1):
            h, g = found[-1]
            found.append((a.activate(a.body.hidden(layer, h)), b.activate(b.body.hidden(layer, g))))
        return found

    def heads(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return both towers' logits (B,), (B,) of embedded rows x and y (B, D)."""
        u, v = self.first(x, y)
        h, g = self.hidden(u, v)[-1]
        return self.a.body.logit(h, u), self.b.body.logit(g, v)

    def both(self, context_ids: Tensor, candidate_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return both towers' logits (B,), (B,)."""
        x = embed(self.slots, list(self.a.tables), context_ids, candidate_ids)
        y = embed(self.slots, list(self.b.tables), context_ids, candidate_ids)
        return self.heads(x, y)

    def forward(self, context_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the pair's joint logits (B,): the mean of both."""
        a, b = self.both(context_ids, candidate_ids)
        return 0.5 * (a + b)


class FusionForm(nn.Module):
    """The fusion form: one tower's depth; parallel branches from A and from B under one shared non-linearity.

    pre_0 = sum_b mix_b norm_b0(sum_f g_bf pool(T_f[ids]) P_bf);  h = relu(pre_0)
    pre_{l+1} = sum_b [mix_b norm_{b,l+1}(linear_bl(h)) + cross_bl(h)];  h = relu
    logit = sum_b mix_b (output_b(h) + sum_k q_bk pre_0k^2)

    Everything between two non-linearities is linear in evaluation, so the branches merge exactly into one tower.

    Args:
        slots: The fields; both branches read one table a slot.
        widths: H_0..H_{L-1}.
        dropout: Probability of dropping a hidden unit while training.
    """

    def __init__(self, slots: "Sequence[FieldSlot]", widths: "Sequence[int]", *, dropout: float = 0.0) -> None:
        super().__init__()
        if not slots or not widths:
            raise ValueError(f"expected at least one slot and one hidden layer; got {len(slots)} and {len(widths)}")
        self.slots = tuple(slots)
        self.widths = tuple(widths)
        self.dropout = dropout
        self.reads_serving_constants = False
        self.tables = _tables(slots, 1e-2)
        self.branches = nn.ModuleList([Branch(slots, widths, linked=True), Branch(slots, widths, linked=True)])

    @property
    def parallel(self) -> tuple[Branch, Branch]:
        """Both branches, typed."""
        return cast("tuple[Branch, Branch]", tuple(self.branches))

    def head(self, x: Tensor) -> Tensor:
        """Return logits (B,) of embedded rows x (B, D)."""
        branches = self.parallel
        z = branches[0].mix * branches[0].first(x) + branches[1].mix * branches[1].first(x)
        h = self._activate(z)
        for layer in range(len(self.widths) - 1):
            pre = [b.mix * b.hidden(layer, h) + b.cross[layer](h) for b in branches]
            h = self._activate(pre[0] + pre[1])
        return branches[0].mix * branches[0].logit(h, z) + branches[1].mix * branches[1].logit(h, z)

    def forward(self, context_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return logits (B,).

        Args:
            context_ids: (B, Cc) or (1, Cc) integer ids on the full prepared layout.
            candidate_ids: (B, Ci) integer ids.
        """
        if self.reads_serving_constants:
            context_ids, candidate_ids = serving_ids(self.slots, context_ids, candidate_ids)
        return self.head(embed(self.slots, list(self.tables), context_ids, candidate_ids))

    def serving(self) -> Self:
        """Return a form that shares these weights and reads the serving constant of every training-only slot."""
        form = copy(self)
        form.reads_serving_constants = True
        return form

    def _activate(self, pre: Tensor) -> Tensor:
        return rectified(pre, self.dropout if self.training else 0.0)


def serving_ids(slots: "Sequence[FieldSlot]", context_ids: Tensor, candidate_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return both id matrices with every training-only slot's column set to its serving constant."""
    sides = {"context": context_ids.clone(), "candidate": candidate_ids.clone()}
    for slot in slots:
        if slot.serving_constant_id is not None:
            ids = sides[slot.side][:, slot.first : slot.first + slot.width]
            ids.fill_(slot.serving_constant_id if slot.pad_id is None else slot.pad_id)
            ids[:, 0] = slot.serving_constant_id
    return sides["context"], sides["candidate"]


def _tables(slots: "Sequence[FieldSlot]", scale: float) -> nn.ParameterList:
    tables = []
    for slot in slots:
        table = torch.empty(slot.rows, slot.dim)
        if not table.is_meta:  # random numbers for tables without values would load the compiler: seconds
            table.normal_().mul_(scale)
            if slot.pad_id is not None:
                table[slot.pad_id] = 0.0
        # Without gradient: tables are trained by rows (optim.py), never as a whole.
        tables.append(nn.Parameter(table, requires_grad=False))
    return nn.ParameterList(tables)
