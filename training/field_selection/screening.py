"""What a field says about the label beyond another field: every pair tested, so that pure interactions are found.

A field of an XOR says nothing alone, and nothing beyond any field but its partner. Yet I(A, B; Y) - max(I(A; Y),
I(B; Y)) = min(I(A; Y | B), I(B; Y | A)) is large for the pair. So I(T; Y | C) is tested for every ordered pair of a
target T and a condition C, against the *stratified permutation null*: labels shuffled among rows of the same value of
C. It keeps what C says about Y, and holds whether or not C and T depend on each other.

The statistic is the quadratic form T = sum over cells of S^2 / n, where S is a cell's positives less those that its
stratum's rate predicts: the label's variance explained within strata (Goodman and Kruskal's tau before scaling; Light
and Margolin, JASA 66, 1971). It weighs strata by p q, as is best against effects of one size in log-odds, and unlike a
sum of entropies its first three null moments are closed formulas, exact however sparse the cells (`shuffling`). To
second order, excess / (2 sum of p q) is the conditional information in nats.

Rows of one request share its context, so they are no independent evidence about a context field: labels of a request
resemble each other for reasons of their own, and noise that is constant in a request would look informative. Such
*clustered* targets are tested on units of a request's rows of equal condition, whose standardised sums are shuffled.

Letters: U units, V values, S strata; z a unit's residual (label, or sum of labels, less its stratum's expectation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from training.field_selection.information import Moments, entropy, upper_tail
from training.field_selection.shuffling import RESIDUAL_POWERS, SIZE_POWERS, shuffled_moments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = "NDArray[np.float64]"
Ints: TypeAlias = "NDArray[np.int64]"

LARGEST_TABLE: Final = 1024
"""Values a side of a pair's table: more go to a hashed tail."""


@dataclass(frozen=True)
class ConditionalTest:
    """What a target says about the label beyond a condition.

    Attributes:
        statistic: the quadratic form.
        null: its moments if the target says nothing.
        p_value: of a statistic this high, if the target says nothing.
        information: I(T; Y | C) to second order, nats, corrected: 0 on average if the target says nothing.
        resolved: share of the label's variation within strata that cells do not fit by chance, in [0, 1]. What the
            target truly says is seen in `information` by this share (as adjusted R^2 has it); 0 with a row a cell.
    """

    statistic: float
    null: Moments
    p_value: float
    information: float
    resolved: float


@dataclass(frozen=True)
class Strata:
    """The label, cut into strata by a condition, in units that may be shuffled within their stratum.

    Attributes:
        stratum: (U,) the condition's code, ascending (a stratum's cells then stay in the processor's cache).
        residual: (U,) z, of mean 0 in every stratum and of one variance in units of any size.
        row: (U,) a row of each unit, to look the target up.
        size: number of the condition's codes.
        variance: sum of p q over the rows, over what their likeness within units takes from their evidence.
        units: (size,) number of units of every stratum.
        powers: (5, size) their sums of z^2 to z^6.
    """

    stratum: NDArray[np.int64]
    residual: NDArray[np.float64]
    row: NDArray[np.int64]
    size: int
    variance: float
    units: NDArray[np.float64]
    powers: NDArray[np.float64]


def stratify(
    condition: NDArray[np.int64],
    size: int,
    label: NDArray[np.uint8],
    units: NDArray[np.int64] | None = None,
    *,
    expected: NDArray[np.float64] | None = None,
) -> Strata:
    """Cut rows into strata.

    Args:
        condition: (N,) codes in 0..size-1.
        size: number of codes.
        label: (N,) 0 or 1.
        units: (N,) rows that share a number and a stratum are one unit; every row its own if None.
        expected: (N,) what is expected of the label, from other fields; the stratum's rate if None.
    """
    rows = np.bincount(condition, minlength=size)
    if expected is None:
        expected = (np.bincount(condition, label, size) / np.maximum(rows, 1))[condition]
    spread = expected * (1.0 - expected)
    residual = label - expected
    evidence = 1.0
    if units is None:
        row = np.asarray(np.argsort(condition, kind="stable"), dtype=np.int64)
        stratum, residual = condition[row], residual[row]
    else:
        key = condition * (int(units.max()) + 1) + units
        _, row, unit, n = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        stratum = condition[row]
        total = np.bincount(unit, residual, row.size)
        # Units are exchangeable only if they vary alike, whatever their size: values of a field may depend on it
        # (those of single rows are out of vocabulary). n rows that correlate by rho vary as n (1 + (n - 1) rho).
        independent = np.bincount(unit, spread, row.size)
        among = float(((n - 1) * independent).sum())
        rho = float(np.clip((total**2 - independent).sum() / among, 0.0, 1.0)) if among > 0.0 else 0.0
        effect = 1.0 + (n - 1) * rho
        residual = np.asarray(total / np.sqrt(n * effect), dtype=np.float64)
        evidence = float((n / effect).sum() / n.sum())
    count = np.bincount(stratum, minlength=size).astype(np.float64)
    residual = residual - (np.bincount(stratum, residual, size) / np.maximum(count, 1.0))[stratum]
    powers = _power_sums(stratum, residual, RESIDUAL_POWERS, size)
    return Strata(stratum, residual, row, size, float(spread.sum()) * evidence, count, powers)


def conditional_test(target: NDArray[np.int64], size: int, strata: Strata) -> ConditionalTest:
    """Test what a target says about the label beyond the strata's condition.

    Args:
        target: (N,) codes in 0..size-1 of all rows.
        size: number of codes; a table of more than `LARGEST_TABLE` squared cells is held sparse.
        strata: see `stratify`.
    """
    cell = strata.stratum * size + target[strata.row]
    if strata.size * size <= LARGEST_TABLE**2:
        count = np.bincount(cell, minlength=strata.size * size)
        used = np.flatnonzero(count)
        total = np.bincount(cell, strata.residual, strata.size * size)[used]
        n = count[used].astype(np.float64)
    else:  # exact values of two identifiers: memory goes by the cells in use
        used, place, count = np.unique(cell, return_inverse=True, return_counts=True)
        total = np.bincount(place, strata.residual)
        n = count.astype(np.float64)
    stratum = used // size
    statistic = float(total**2 @ (1.0 / n))
    sizes = _power_sums(stratum, n, SIZE_POWERS, strata.size)
    null = shuffled_moments(strata.units, strata.powers, sizes)
    information = (statistic - null.mean) / (2.0 * strata.variance) if strata.variance > 0 else 0.0
    whole = float(strata.powers[0].sum())
    resolved = 1.0 - null.mean / whole if whole > 0.0 else 0.0
    return ConditionalTest(statistic, null, upper_tail(statistic, null), information, min(max(resolved, 0.0), 1.0))


def _power_sums(group: Ints, values: Floats, powers: tuple[int, ...], size: int) -> NDArray[np.float64]:
    """Sums of consecutive powers of values (U,) by group: (len(powers), size). By products: ** is ten times slower."""
    sums = []
    power = values ** powers[0]
    for exponent in powers:
        # From 1 at exponent 0, so that integers stay exact: cells are counted, and counts compared.
        power = np.ones_like(values) if exponent == 0 else power
        sums.append(np.bincount(group, power, size))
        power = power * values
    return np.stack(sums)


def bounded(codes: NDArray[np.integer], size: int, largest: int = LARGEST_TABLE) -> tuple[NDArray[np.int64], int]:
    """Codes for pair tables: values seen, renumbered; of too many, the more frequent half of the room, and a hash.

    Args:
        codes: (N,) in 0..size-1.
        size: number of codes.
        largest: most codes wanted.

    Returns:
        Codes (N,) and their number. A coarser target can lose power but not validity.
    """
    count = np.bincount(codes, minlength=size)
    seen = int(np.count_nonzero(count))
    order = np.argsort(-count, kind="stable")
    rank = np.empty(size, np.int64)
    rank[order] = np.arange(size)
    if seen > largest:
        top = largest // 2
        tail = rank >= top
        # Fibonacci hashing of the rank: neighbours in count part.
        mixed = (rank[tail].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
        rank[tail] = top + (mixed % np.uint64(largest - top)).astype(np.int64)
        seen = largest
    return rank[codes], seen


def joint_entropy(a: NDArray[np.int64], b: NDArray[np.int64], size_b: int) -> float:
    """Plug-in H(A, B) of codes (N,), nats; the memory is that of the rows, whatever the codes' range."""
    return entropy(np.unique(a.astype(np.int64) * size_b + b, return_counts=True)[1])


def adjusted_redundancy(joint: float, shuffled: float, entropies: tuple[float, float], norm: float) -> float:
    """Share of a norm (min or max of both entropies) that two fields have in common, adjusted for chance.

    (I - E) / (norm - E), where E is the information of the same two columns, one of them shuffled (Vinh et al. 2010).
    1 for copies (norm = max) or where one is a function of the other (norm = min), about 0 for independent fields,
    however many values they have.
    """
    information, chance = sum(entropies) - joint, sum(entropies) - shuffled
    room = norm - chance
    if room <= 1e-9 * max(norm, 1e-300):
        # Nearly every row a value of its own: only a perfect match can be told from chance.
        return 1.0 if norm > 0 and information >= norm * (1.0 - 1e-12) else 0.0
    return float(np.clip((information - chance) / room, 0.0, 1.0))


def greedy_order(alone: ArrayLike, conditional: ArrayLike) -> tuple[list[int], list[float]]:
    """Fields by conditional mutual information maximisation (Fleuret, JMLR 5, 2004).

    Args:
        alone: (F,) I(X_f; Y).
        conditional: (F, F) I(X_f; Y | X_g) at [f, g].

    Returns:
        The order in which fields are taken, and what each adds: min over g taken before of I(X_f; Y | X_g).
    """
    score = np.array(alone, dtype=np.float64)
    table = np.asarray(conditional, dtype=np.float64)
    order: list[int] = []
    gains: list[float] = []
    left = np.ones(score.size, dtype=bool)
    while left.any():
        best = int(np.argmax(np.where(left, score, -np.inf)))
        order.append(best)
        gains.append(float(score[best]))
        left[best] = False
        score = np.minimum(score, table[:, best])
    return order, gains
