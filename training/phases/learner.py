"""What a phase of training works on: a split's rows in batches, and the learner that turns a batch into a loss.

Shapes: N rows, B rows of a batch, C columns of both id matrices side by side (context first), D = sum of d_f.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from training.paired import Judged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from training.phases.tables import TableBank

EVALUATION_ROWS = 8192
"""Rows of a batch in evaluation."""


class SplitLike(Judged, Protocol):
    """What training reads of a split: id matrices int32 (N, Cc) and (N, Ci) beside labels, weights and groups."""

    @property
    def context_ids(self) -> NDArray[np.int32]: ...  # noqa: D102
    @property
    def candidate_ids(self) -> NDArray[np.int32]: ...  # noqa: D102


@dataclass(frozen=True)
class Batch:
    """Rows on the training device.

    Attributes:
        ids: (B, C).
        label: (B,).
        weight: (B,), or None.
        teacher: A frozen teacher's logits (B,), or None.
        evidence: An evidence tower's logits (B,), or None.
    """

    ids: Tensor
    label: Tensor
    weight: Tensor | None
    teacher: Tensor | None = None
    evidence: Tensor | None = None


class Rows:
    """A split's rows, gathered by index and put on the device.

    Args:
        split: The arrays (memory-mapped ones are read by the rows a batch needs).
        device: Where batches go.

    Attributes:
        evidence: What an evidence tower says of each row (N,), which batches carry; None: nothing does.
    """

    def __init__(self, split: SplitLike, device: torch.device) -> None:
        self.split = split
        self.device = device
        self.evidence: NDArray[np.float32] | None = None
        # Mean weight 1, so that rates and regularisation mean the same whatever the weights' scale is.
        self._scale = 1.0 if split.weight is None else 1.0 / float(np.mean(split.weight, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.split.label)

    def batch(self, index: NDArray[np.int64] | slice) -> Batch:
        """Gather rows."""
        split = self.split
        ids = np.concatenate([split.context_ids[index], split.candidate_ids[index]], axis=1)
        weight = None if split.weight is None else self._float(split.weight[index] * self._scale)
        evidence = None if self.evidence is None else self._float(self.evidence[index])
        return Batch(torch.from_numpy(ids).to(self.device), self._float(split.label[index]), weight, evidence=evidence)

    def blocks(self, rows: int = EVALUATION_ROWS) -> Iterator[Batch]:
        """All rows in order, a block at a time."""
        for start in range(0, len(self), rows):
            yield self.batch(slice(start, start + rows))

    def _float(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(self.device)


class Learner(ABC):
    """What a phase trains.

    Attributes:
        module: Holds the dense parameters.
        banks: The tables.
        monitored: The name of the output that early stopping looks at.
        faster: Name prefix -> factor of the learning rate for dense parameters under it.
    """

    module: nn.Module
    banks: tuple[TableBank, ...]
    monitored: str
    faster: Mapping[str, float] = MappingProxyType({})

    @abstractmethod
    def outputs(self, embedded: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return logits (B,) by name, given a batch's rows embedded by every bank (B, D)."""

    def prepare(self, batch: Batch) -> Batch:
        """Return the batch to train on."""
        return batch

    @abstractmethod
    def loss(self, embedded: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the mean loss of a batch, given its rows embedded by every bank (B, D)."""

    @abstractmethod
    def finish(self, stacks: Sequence[Sequence[Tensor]]) -> None:
        """Put the phase's best tables (every bank's stacks) into the module; its dense weights are set already."""
