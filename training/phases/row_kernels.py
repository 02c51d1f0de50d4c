"""What a step does to single rows, by the fastest well-kept way there is on a CPU; torch's own elsewhere.

Measured by `python -m tests.training.bench_speed`: torch's indexed kernels take up to ten times as long on one thread.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


def room(rows: int, columns: int, like: Tensor) -> Tensor:
    """Uninitialised memory; NumPy asks the system for huge pages, without which rows far apart cost a fault each."""
    if like.device.type != "cpu":
        return torch.empty(rows, columns, dtype=like.dtype, device=like.device)
    return torch.from_numpy(np.empty((rows, columns), dtype=str(like.dtype).removeprefix("torch.")))


def places(flags: Tensor) -> Tensor:
    """Where flags (n,) are set; NumPy is several times as fast on a CPU."""
    if flags.device.type != "cpu":
        return torch.nonzero(flags)[:, 0]
    return torch.from_numpy(np.flatnonzero(flags.numpy()))


def put_rows(target: Tensor, rows: Tensor, values: Tensor) -> None:
    """Write distinct rows (U, c); on a CPU NumPy copies each as one piece, in a quarter of the time."""
    if target.device.type != "cpu":
        target.index_copy_(0, rows, values)
        return
    row = f"V{target.shape[1] * target.element_size()}"
    target.numpy().view(row)[:, 0][rows.numpy()] = values.numpy().view(row)[:, 0]


def sum_by_place(values: Tensor, place: Tensor, size: int) -> Tensor:
    """Add rows (n, d) up by place (n,) in 0..size-1: (size, d).

    On a CPU as a product with the sparse matrix that has a 1 a row: the same sums in the same order as index_add_, in
    a quarter of its time.
    """
    n = len(values)
    if values.device.type != "cpu":
        return torch.zeros(size, values.shape[1], dtype=values.dtype, device=values.device).index_add_(0, place, values)
    ones = np.ones(n, dtype=str(values.dtype).removeprefix("torch."))
    matrix = sparse.csc_array((ones, place.numpy(), np.arange(n + 1)), shape=(size, n))
    return torch.from_numpy(matrix @ values.detach().numpy())
