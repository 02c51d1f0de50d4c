"""Merges the fusion form's parallel branches into one tower: exact by algebra, nothing is learned or dropped.

Everything between two non-linearities is affine in both branches, and they are added before the shared ReLU, so
their sum is one affine map. With s, t a branch's folded batch norm (`batch_norm.py`), b a branch, m its mix:

    M_f     = sum_b m_b g_bf P_bf diag(s_b0)            bias  = sum_b m_b t_b0
    W_l     = sum_b [m_b A_bl^T diag(s_b,l+1) + C_bl^T]  b_l   = sum_b m_b (a_bl * s_b,l+1 + t_b,l+1)
    w       = sum_b m_b o_b^T                            b     = sum_b m_b c_b        q = sum_b m_b q_b

A, a are a linear layer's weight (out, in) and bias, C the cross link's weight, o, c the output layer's, q what squares
add to the logit. One tower's dense FLOPs remain, whatever the number of branches. (Structural re-parameterisation:
RepVGG, arXiv 2101.03697.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model_export.errors import NonFiniteError, VarianceError
from model_export.fusion.batch_norm import fold_batch_norm
from model_export.fusion.tower import Dense, Float, FusedField, FusedTower
from training.models.files import all_finite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from training.models.reaction import FusionForm


def fuse_towers(form: FusionForm) -> FusedTower:
    """Return the one tower that computes what the fusion form computes, on the same id layout.

    Args:
        form: The fusion form; it is read, not changed.

    Raises:
        NonFiniteError: A weight is NaN or infinite.
    """
    state = finite_state(form)
    branches = [_Branch(form, state, index) for index in range(len(form.branches))]
    fields = []
    for index, slot in enumerate(form.slots):
        table = state[f"tables.{index}"]
        if slot.pad_id is not None and np.any(table[slot.pad_id]):
            # The form masks pads out of its pooling, so whatever that row holds counts as zero.
            table = table.copy()
            table[slot.pad_id] = 0.0
        fields.append(
            FusedField(
                name=slot.name,
                side=slot.side,
                first=slot.first,
                width=slot.width,
                table=table,
                projection=_sum([branch.projection(index) for branch in branches]),
                pooling=slot.pooling,
                pad_id=slot.pad_id,
                serving_constant_id=slot.serving_constant_id,
            )
        )
    depth = len(form.widths)
    quadratic = _sum([branch.quadratic() for branch in branches])
    return FusedTower(
        fields=tuple(fields),
        bias=_sum([branch.mix * branch.norms[0].shift for branch in branches]),
        layers=tuple(_add([branch.dense(layer) for branch in branches]) for layer in range(depth - 1)),
        output=_add([branch.output() for branch in branches]),
        quadratic=quadratic if quadratic.any() else None,
    )


def finite_state(form: FusionForm) -> dict[str, Float]:
    """Return the form's state by name, in float64 but for the tables: these may be large and are not copied.

    Raises:
        NonFiniteError: A tensor holds NaN or infinity (says which, where and how many).
    """
    tensors = form.state_dict()
    check_finite(tensors)
    state = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return {name: value if name.startswith("tables.") else value.astype(np.float64) for name, value in state.items()}


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers.

    Raises:
        NonFiniteError: A tensor holds NaN or infinity (says which, where and how many).
    """
    for name, tensor in tensors.items():
        if not all_finite(tensor):
            bad = (~tensor.isfinite()).nonzero().tolist()
            where = name + "".join(f"[{index}]" for index in bad[0])
            got = tensor[tuple(bad[0])].item()
            raise NonFiniteError(f"{where}: expected finite weights, got {got} ({len(bad)} such in {name})")


def check_variances(tensors: Mapping[str, Tensor]) -> None:
    """Refuse running variances below zero, which no training writes and no square root takes.

    Raises:
        VarianceError: Says which tensor, where and how many.
    """
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] != "running_var":
            continue
        bad = (tensor < 0).nonzero().ravel().tolist()
        if bad:
            got = tensor[bad[0]].item()
            raise VarianceError(f"{name}[{bad[0]}]: expected variances of at least 0, got {got} ({len(bad)} such)")


class _Branch:
    """One branch's affine maps.

    Args:
        form: The fusion form.
        state: Its state in float64.
        index: The branch.
    """

    def __init__(self, form: FusionForm, state: dict[str, Float], index: int) -> None:
        prefix = f"branches.{index}."
        self._state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        self.mix = float(self._state["mix"])
        norms = form.branches[index].norms
        self.norms = [
            fold_batch_norm({key: self._state[f"norms.{layer}.{key}"] for key in _NORM}, norm.eps)
            for layer, norm in enumerate(norms)  # type: ignore[arg-type]
        ]

    def projection(self, field: int) -> Float:
        """This branch's part of M_f: (d_f, H_0)."""
        gate = float(self._state["gates"][field])
        return np.asarray(self.mix * gate * self._state[f"projections.{field}"] * self.norms[0].scale)

    def dense(self, layer: int) -> Dense:
        """This branch's part of hidden layer `layer` + 1, its cross link included."""
        norm = self.norms[layer + 1]
        linear = self._state[f"linears.{layer}.weight"].T * norm.scale
        bias = self._state[f"linears.{layer}.bias"] * norm.scale + norm.shift
        return Dense(self.mix * linear + self._state[f"cross.{layer}.weight"].T, self.mix * bias)

    def output(self) -> Dense:
        """This branch's part of the output layer."""
        return Dense(self.mix * self._state["output.weight"].T, self.mix * self._state["output.bias"])

    def quadratic(self) -> Float:
        """This branch's part of q: (H_0, 1)."""
        return np.asarray(self.mix * self._state["quadratic"][:, None])


_NORM = ("weight", "bias", "running_mean", "running_var")


def _sum(parts: list[Float]) -> Float:
    return np.asarray(sum(parts[1:], parts[0]))


def _add(parts: list[Dense]) -> Dense:
    return Dense(_sum([part.weight for part in parts]), _sum([part.bias for part in parts]))
