"""What AFE's measures say of the fields as a whole: which cluster, how few carry the information, what the rest costs.

Everything here follows from `Measures` and `Selection` alone, so a report can be made again from a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from training.field_selection.information import entropy
from training.field_selection.screening import greedy_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.field_selection.measures import Measures
    from training.field_selection.selection import Selection

Kind = Literal["carries", "weak", "noise", "copy"]

SHARES: Final = (0.9, 0.95, 0.99)
CARRIED: Final = 0.99
"""Share of the information that the fields which are not weak carry together."""

LEAST: Final = 0.3  # share of an effect that has to be resolved for its size to be told
FUNCTION: Final = 0.995  # share of the smaller entropy in common from which on that field is a function of the other

CLUSTERED: Final = 0.5
"""Share of an entropy in common from which on fields are one cluster."""


@dataclass(frozen=True)
class Merge:
    """Two clusters become one: their numbers (a field's is its place, merges follow), and what they share."""

    first: int
    second: int
    shared: float


@dataclass(frozen=True)
class Tree:
    """A hierarchy of fields.

    Attributes:
        names: of the fields.
        order: their places, so that the tree can be drawn without crossings.
        merges: from the closest pair to the whole.
    """

    names: tuple[str, ...]
    order: tuple[int, ...]
    merges: tuple[Merge, ...]

    def clusters(self, shared: float = CLUSTERED) -> list[tuple[str, ...]]:
        """Groups of at least two fields that share this much, the largest first."""
        members: dict[int, tuple[int, ...]] = {place: (place,) for place in range(len(self.names))}
        for number, merge in enumerate(self.merges, len(self.names)):
            if merge.shared < shared:
                break
            members[number] = members.pop(merge.first) + members.pop(merge.second)
        groups = [tuple(self.names[place] for place in sorted(group)) for group in members.values() if len(group) > 1]
        return sorted(groups, key=lambda group: (-len(group), group))


def shared_entropy(measures: Measures) -> NDArray[np.float64]:
    """What pairs share (F, F), in [0, 1]: of the smaller entropy, or of the larger where that was measured exactly."""
    both = np.array([measures.redundancy_min, measures.redundancy_max], dtype=np.float64)
    return np.asarray(both.max(0))


def cluster(names: Sequence[str], shared: NDArray[np.float64]) -> Tree:
    """Cluster fields by what they share (F, F), by average linkage."""
    if len(names) == 1:
        return Tree(tuple(names), (0,), ())
    distance = 1.0 - np.clip(shared, 0.0, 1.0)
    distance = (distance + distance.T) / 2.0
    np.fill_diagonal(distance, 0.0)
    found = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    merges = tuple(Merge(int(a), int(b), 1.0 - float(d)) for a, b, d, _ in found)
    return Tree(tuple(names), tuple(int(place) for place in leaves_list(found)), merges)


@dataclass(frozen=True)
class Carried:
    """The greedy order of fields, and what they carry together.

    Attributes:
        names: in the order of conditional relevance (CMIM).
        information: (F,) share of the summed gains that the fields up to here carry.
        parameters: (F,) share of all ids, hence of embedding parameters in one dimension, that they hold.
    """

    names: tuple[str, ...]
    information: tuple[float, ...]
    parameters: tuple[float, ...]

    def needed(self, share: float) -> int:
        """Fewest fields of the order that carry a share of the information."""
        return next(
            (count for count, found in enumerate(self.information, 1) if found >= share - 1e-12), len(self.names)
        )

    def parameters_beyond(self, share: float) -> float:
        """Share of the embedding parameters that all other fields hold."""
        return 1.0 - self.parameters[self.needed(share) - 1]


def carried(measures: Measures) -> Carried:
    """Add up what each field says beyond those before it.

    A gain is what is left beyond the one field before it that leaves least (CMIM), so what three fields repeat of a
    fourth only together counts in full, and a pure pair counts nothing: an estimate, from above but for pairs. Each
    term is scaled up to what more rows would show; where hardly anything is to be seen, and no share of entropy says
    otherwise, the field's own information stands.
    """
    label = entropy([measures.base_rate, 1.0 - measures.base_rate]) / np.log(2.0)
    alone = np.array([field.information_bits / max(1.0 - field.noise_bits / label, LEAST) for field in measures.fields])
    alone = np.maximum(alone, 0.0)
    bits = np.array(measures.conditional_bits, dtype=np.float64)
    resolved = np.array(measures.resolved) if measures.resolved else np.ones_like(bits)
    conditional = np.where(resolved >= LEAST, bits / np.maximum(resolved, LEAST), alone[:, None])
    # A function of another says nothing beyond it; bounded tables, which hash rare values together, may not show that.
    conditional[functions(measures)] = 0.0
    order, gains = greedy_order(alone, conditional)
    gained = np.maximum(gains, 0.0)
    names = [measures.fields[place].name for place in order]
    total = gained.sum()
    information = np.cumsum(gained) / total if total > 0 else np.ones(len(gained))
    ids = np.cumsum([measures.fields[place].rows for place in order])
    return Carried(tuple(names), tuple(information.tolist()), tuple((ids / ids[-1]).tolist()))


def functions(measures: Measures) -> NDArray[np.bool_]:
    """Whether the row's field is (nearly) a function of the column's (F, F), itself not counted."""
    H = np.array([field.entropy_bits for field in measures.fields])
    found = (np.array(measures.redundancy_min) >= FUNCTION) & (H[:, None] <= H[None, :])
    np.fill_diagonal(found, val=False)
    return np.asarray(found)


@dataclass(frozen=True)
class KindRow:
    """Fields of one kind. Attributes: kind, names, share of all fields, share of all embedding parameters."""

    kind: Kind
    names: tuple[str, ...]
    fields: float
    parameters: float


def kinds(measures: Measures, selection: Selection) -> list[KindRow]:
    """Sort the fields: noise and copies are AFE's; of the others, weak ones add less than the last hundredth.

    A field of a pair that says something only together carries too, unless it is a function of one that does.
    """
    order = carried(measures)
    strong = set(order.names[: order.needed(CARRIED)])
    place = {name: number for number, name in enumerate(measures.names)}
    table = functions(measures)
    known = {name for name, row in place.items() if any(table[row, place[other]] for other in strong)}
    strong |= {name for pair in selection.interactions for name in pair} - known
    found: dict[Kind, list[str]] = {"carries": [], "weak": [], "noise": [], "copy": []}
    for field in measures.fields:
        if field.name in selection.noise:
            found["noise"].append(field.name)
        elif field.name in selection.copies:
            found["copy"].append(field.name)
        else:
            found["carries" if field.name in strong else "weak"].append(field.name)
    rows = {field.name: field.rows for field in measures.fields}
    return [
        KindRow(kind, tuple(names), len(names) / len(rows), sum(rows[name] for name in names) / sum(rows.values()))
        for kind, names in found.items()
    ]
