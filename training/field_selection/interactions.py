"""How two fields work together about the label: synergy, redundancy, and how sure that is.

Interaction information of fields f and g about the label Y is
    I(f, g; Y) - I(f; Y) - I(g; Y) = I(f; Y | g) - I(f; Y):
above 0 the two say more together than apart (*synergy*; an XOR says all of it so), below 0 they repeat each other about
the label (*redundancy*; a copy has minus its own information). Other authors write it with the opposite sign. It is not
what a pair says beyond its better half, I(f, g; Y) - max(I(f; Y), I(g; Y)), which cannot be below 0.

Everything is measured on exact values (memory goes by the rows). A corrected estimate sees only the share of a true
effect that cells of several rows leave to see (`ConditionalTest.resolved`), and beyond a condition this is less than
alone: taken as they are, two identifiers would seem redundant because hardly any pair of their values comes twice. So
each term is divided by its share, and where less than `RESOLVED` is left, nothing is said of the pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import ndtr

from training.field_selection.field_views import dense
from training.field_selection.information import adjusted_p_values
from training.field_selection.intervals import NORMAL, standard_error
from training.field_selection.measures import Interaction
from training.field_selection.screening import conditional_test, stratify
from training.field_selection.single_fields import BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.field_selection.single_fields import Sample

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

RESOLVED: Final = 0.3
MOST_PAIRS: Final = 15
"""Pairs looked at closely on either side: those that seem of most synergy and of most redundancy on bounded tables."""


@dataclass(frozen=True)
class _Term:
    """Information in bits, its variance for noise, and the share that is resolved."""

    bits: float
    variance: float
    resolved: float


def interactions(sample: Sample, conditional: Floats, resolved: Floats) -> tuple[Interaction, ...]:
    """The pairs of most synergy and of most redundancy, with intervals.

    Args:
        sample: the rows that pairs are measured on.
        conditional: (F, F) I(X_row; Y | X_column) in bits, on bounded tables.
        resolved: (F, F) what share of it they resolve.

    Returns:
        The most synergy first. P-values are two-sided and adjusted (Holm) for the number of all pairs.
    """
    alone = [_term(sample, place, None) for place in range(len(sample.views))]
    first, second = np.tril_indices(len(alone), -1)
    found = []
    for place in _promising(alone, conditional, resolved, first, second):
        i, j = int(second[place]), int(first[place])
        terms = {pair: _term(sample, *pair) for pair in ((i, j), (j, i))}
        usable = [pair for pair, term in terms.items() if term.resolved >= RESOLVED <= alone[pair[0]].resolved]
        if not usable:
            continue
        # Both ways say the same where both can be measured; the better resolved one counts more.
        weight = {pair: terms[pair].resolved for pair in usable}
        size = sum(weight[pair] * (terms[pair].bits - alone[pair[0]].bits) for pair in usable) / sum(weight.values())
        for_noise = min(terms[pair].variance + alone[pair[0]].variance for pair in usable)
        error = standard_error(_pointwise_variance(sample, i, j), for_noise)
        beyond = min(max(term.bits, 0.0) for term in terms.values())
        found.append((i, j, size, error, beyond))
    p_values = np.ones(max(first.size, len(found)))
    p_values[: len(found)] = [
        2.0 * float(ndtr(-abs(size) / error)) if error > 0 else 1.0 for _, _, size, error, _ in found
    ]
    adjusted = adjusted_p_values(p_values)
    rows = [
        Interaction(
            first=sample.slots[i].name,
            second=sample.slots[j].name,
            both_bits=alone[i].bits + alone[j].bits + size,
            beyond_better_bits=beyond,
            interaction_bits=size,
            low_bits=size - NORMAL * error,
            high_bits=size + NORMAL * error,
            p_value=float(p),
        )
        for (i, j, size, error, beyond), p in zip(found, adjusted[: len(found)], strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: -row.interaction_bits))


def _promising(alone: Sequence[_Term], conditional: Floats, resolved: Floats, first: Ints, second: Ints) -> list[int]:
    """Which pairs to look at: the largest and the smallest by bounded tables, which hash rare values together."""
    bits = np.array([term.bits for term in alone])
    one_way = np.where(resolved >= RESOLVED, conditional / np.maximum(resolved, RESOLVED) - bits[:, None], 0.0)
    size = (one_way + one_way.T)[first, second]
    order: list[int] = np.argsort(-size, kind="stable").tolist()
    return order if len(order) <= 2 * MOST_PAIRS else order[:MOST_PAIRS] + order[-MOST_PAIRS:]


def _term(sample: Sample, target: int, condition: int | None) -> _Term:
    """What a field says alone, or beyond another, on exact values."""
    view = sample.views[target]
    units = sample.units(view, view.exact)
    if condition is None:
        strata = stratify(np.zeros_like(view.exact), 1, sample.label, units)
    else:
        given = sample.views[condition]
        strata = stratify(given.exact, given.size, sample.label, units)
    test = conditional_test(view.exact, view.size, strata)
    if test.resolved < RESOLVED or strata.variance <= 0.0:
        return _Term(0.0, 0.0, test.resolved)
    scale = BITS / (2.0 * strata.variance * test.resolved)
    return _Term(test.information * BITS / test.resolved, test.null.variance * scale**2, test.resolved)


def _pointwise_variance(sample: Sample, i: int, j: int) -> float:
    """First-order variance of a pair's interaction information at plug-in rates, bits squared."""
    a, b = sample.views[i], sample.views[j]
    label = sample.label.astype(np.int64)
    both = dense(a.exact * b.size + b.exact)
    log_ratio = _log_rate(both, label) - _log_rate(a.exact, label) - _log_rate(b.exact, label)
    log_ratio += _log_rate(np.zeros_like(label), label)
    log_ratio -= log_ratio.mean()
    if sample.groups is not None and (a.clustered or b.clustered):
        log_ratio = np.asarray(np.bincount(sample.groups, log_ratio), dtype=np.float64)
    return float((log_ratio**2).sum()) / label.size**2 * BITS**2


def _log_rate(codes: NDArray[np.int64], label: NDArray[np.int64]) -> Floats:
    """Logarithm of p(y | code) (N,) of every row's own label, at the plug-in rates."""
    total = np.bincount(codes)
    clicks = np.bincount(codes, label, total.size)
    same = np.where(label == 1, clicks[codes], (total - clicks)[codes])
    return np.asarray(np.log(same / total[codes]))
