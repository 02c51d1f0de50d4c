"""Information that one field carries about a binary label, without the bias of small samples. Pure functions, nats.

The plug-in estimate of mutual information is biased upwards by about (V - 1) / 2N (Miller 1955), and by another amount
where a value's expected count is small: an identifier that sees most values once looks informative when it is noise.
Here the bias, the spread and the skewness are those of the *permutation null*: labels shuffled over rows, every
value's count and the number of positives kept. The estimate less its null mean is unbiased at 0 for any cardinality.

Under that null a value's positives are hypergeometric (Vinh, Epps, Bailey, "Information theoretic measures for
clusterings comparison", JMLR 11, 2010, where the mean is a sum over cells). Mean, variance and third moment are exact
here by another road, which needs no sum over pairs of cells: shuffled counts are independent binomial counts given
their sum. A moment given the sum is a Fourier coefficient of the moment under binomials of success probability
p e^{iθ} / (q + p e^{iθ}), where cells are independent and cumulants add.

Letters: V values, N rows, m positives, n_x and k_x a value's rows and positives, p = m / N, q = 1 - p.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from scipy.special import gammainc, gammaincc, gammaln, ndtr, xlogy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = "NDArray[np.float64]"
Ints: TypeAlias = "NDArray[np.int64]"

_STANDARD_DEVIATIONS: Final = 10.0  # how far out a binomial's tail still counts: beyond, 1e-20 of the mass
_SYMMETRIC: Final = 1e-4  # below this skewness the gamma distribution is the normal one to every digit that matters
_BLOCK: Final = 1 << 20  # complex numbers at a time


@dataclass(frozen=True)
class Moments:
    """Mean, variance and third central moment of a statistic under a null hypothesis; sums of independent ones add."""

    mean: float
    variance: float
    third: float

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.mean + other.mean, self.variance + other.variance, self.third + other.third)

    def scaled(self, factor: float) -> Moments:
        """The moments of the statistic times a factor."""
        return Moments(self.mean * factor, self.variance * factor**2, self.third * factor**3)


@dataclass(frozen=True)
class LabelTable:
    """Rows and positives of every value of one field: what a pass over part of the rows keeps of it.

    Attributes:
        total: (V,) int64 rows n_x.
        positive: (V,) int64 rows with label 1, k_x.
    """

    total: NDArray[np.int64]
    positive: NDArray[np.int64]

    @classmethod
    def empty(cls, size: int) -> LabelTable:
        """A table of no rows for V = size values."""
        return cls(np.zeros(size, np.int64), np.zeros(size, np.int64))

    @classmethod
    def count(cls, codes: NDArray[np.integer], label: NDArray[np.integer], size: int) -> LabelTable:
        """Count codes (N,) in 0..size-1 against labels (N,) of 0 and 1."""
        return cls(np.bincount(codes, minlength=size), np.bincount(codes[label == 1], minlength=size))

    def merge(self, other: LabelTable) -> LabelTable:
        """The table of both parts' rows; order and cuts do not matter."""
        return LabelTable(self.total + other.total, self.positive + other.positive)

    @property
    def rows(self) -> int:
        """Rows N."""
        return int(self.total.sum())

    @property
    def positives(self) -> int:
        """Positives m."""
        return int(self.positive.sum())


def entropy(counts: ArrayLike) -> float:
    """Plug-in entropy of counts (any shape): -sum p ln p."""
    n = np.asarray(counts, dtype=np.float64)
    N = n.sum()
    return float(np.log(N) - xlogy(n, n).sum() / N) if N > 0 else 0.0


def entropy_miller_madow(counts: ArrayLike) -> float:
    """Plug-in entropy plus (values seen - 1) / 2N (Miller 1955): the first-order correction, for comparison."""
    n = np.asarray(counts)
    return entropy(n) + (int(np.count_nonzero(n)) - 1) / (2.0 * float(n.sum()))


def mutual_information(joint: ArrayLike) -> float:
    """Plug-in mutual information of a table of counts (V, W): H(X) + H(Y) - H(X, Y)."""
    n = np.asarray(joint, dtype=np.float64)
    return max(0.0, entropy(n.sum(1)) + entropy(n.sum(0)) - entropy(n))


def mutual_information_miller_madow(joint: ArrayLike) -> float:
    """Mutual information of Miller-Madow entropies; right to first order, wrong for many rare values."""
    n = np.asarray(joint)
    return entropy_miller_madow(n.sum(1)) + entropy_miller_madow(n.sum(0)) - entropy_miller_madow(n)


def divergence(total: ArrayLike, positive: ArrayLike, p: float) -> NDArray[np.float64]:
    """h(k; n) = k ln(k / np) + (n - k) ln((n - k) / nq): a cell's part of N times the mutual information."""
    n, k = np.asarray(total, dtype=np.float64), np.asarray(positive, dtype=np.float64)
    miss = n - k
    return np.asarray(xlogy(k, k) + xlogy(miss, miss) - xlogy(n, n) - k * np.log(p) - miss * np.log1p(-p))


def information_about_label(table: LabelTable) -> float:
    """Plug-in I(X; Y)."""
    N, m = table.rows, table.positives
    if m in {0, N}:
        return 0.0
    return max(0.0, float(divergence(table.total, table.positive, m / N).sum()) / N)


def conditional_information(total: ArrayLike, positive: ArrayLike) -> float:
    """Plug-in I(X; Y | Z) of rows and positives (values of Z, values of X).

    By the chain rule the smaller of I(B; Y | A) and I(A; Y | B) is I(A, B; Y) - max(I(A; Y), I(B; Y)): what the pair
    says beyond its better half.
    """
    n, k = np.asarray(total), np.asarray(positive)
    rows, positives = n.sum(1), k.sum(1)
    parts = [
        float(divergence(n[z], k[z], positives[z] / rows[z]).sum())
        for z in np.flatnonzero((positives > 0) & (positives < rows))
    ]
    return max(0.0, sum(parts) / float(n.sum()))


def permutation_null(total: NDArray[np.integer], positives: int) -> Moments:
    """Exact moments of plug-in I(X; Y) with labels shuffled over rows.

    Args:
        total: (V,) rows of every value.
        positives: m, rows with label 1.

    Source: see the module; the cost is the sum over distinct n_x of about min(n_x, 20 sqrt(n_x p q)).
    """
    sizes, copies = np.unique(np.asarray(total)[np.asarray(total) > 0], return_counts=True)
    N = int((sizes * copies).sum())
    if positives in {0, N} or sizes.size == 0:
        return Moments(0.0, 0.0, 0.0)
    p = positives / N
    angles, weights = conditioning(np.array([N]), np.array([positives]))
    theta, weight = angles[0], weights[0]

    # Cumulants of the independent binomial cells at every angle, summed over cells: A, B, C (L,).
    A, B, C = (np.zeros(theta.size, dtype=np.complex128) for _ in range(3))
    center = 0.0
    sd = np.sqrt(sizes * p * (1.0 - p))
    low = np.maximum(0, np.floor(sizes * p - _STANDARD_DEVIATIONS * sd - 12.0)).astype(np.int64)
    high = np.minimum(sizes, np.ceil(sizes * p + _STANDARD_DEVIATIONS * sd + 12.0)).astype(np.int64)
    width = high - low + 1
    for part in _blocks(width, max(1, _BLOCK // theta.size)):
        n, c, w = sizes[part], copies[part], width[part]
        start = np.concatenate([[0], np.cumsum(w)[:-1]])
        n_flat = np.repeat(n, w)
        k = np.arange(int(w.sum())) - np.repeat(start - low[part], w)
        log_mass = gammaln(n_flat + 1.0) - gammaln(k + 1.0) - gammaln(n_flat - k + 1.0)
        mass = np.exp(log_mass + k * np.log(p) + (n_flat - k) * np.log1p(-p))  # binomial
        h = divergence(n_flat, k, p)
        mean = np.add.reduceat(mass * h, start) / np.add.reduceat(mass, start)
        center += float(c @ mean)
        h -= np.repeat(mean, w)
        turned = mass * np.exp(1j * theta[:, None] * (k - n_flat * p))  # (L, sum of widths)
        g = np.add.reduceat(turned, start, axis=1)
        r1, r2, r3 = (np.add.reduceat(turned * h**power, start, axis=1) / g for power in (1, 2, 3))
        A += r1 @ c
        B += (r2 - r1**2) @ c
        C += (r3 - 3.0 * r2 * r1 + 2.0 * r1**3) @ c
    return conditional_moments(A, B, C, weight, center).scaled(1.0 / N)


def conditioning(rows: NDArray[np.int64], positives: NDArray[np.int64]) -> tuple[Floats, NDArray[np.complex128]]:
    """Angles θ and weights with which binomial moments become moments given the sum of positives.

    Args:
        rows: (S,) rows N of S independent shuffles.
        positives: (S,) positives m, 0 < m < N.

    Returns:
        Angles (S, L) in [0, π] and complex weights (S, L): E[f | sum = m] = sum over l of Re(weight_l E_θl[f]).
    """
    N, m = rows[:, None].astype(np.float64), positives[:, None].astype(np.float64)
    p = m / N
    sd = np.sqrt(N * p * (1.0 - p))
    # The sum is concentrated: a grid of this many angles tells all sums within 10 standard deviations apart ...
    grid = np.minimum(N + 1.0, np.ceil(_STANDARD_DEVIATIONS * sd) + 12.0)
    # ... and its characteristic function has decayed to 1e-11 after 7.2 / sd.
    last = np.minimum(np.floor(grid / 2.0), np.ceil(7.2 / sd * grid / (2.0 * np.pi)))
    steps = np.arange(int(last.max()) + 1)
    theta = 2.0 * np.pi * steps / grid
    exponent = N * (np.log1p(p * np.expm1(1j * theta)) - 1j * theta * p)
    weight = np.where(steps <= last, np.exp(np.where(steps <= last, exponent, 0.0)), 0.0)
    # Angles other than 0 and π stand for their mirror images as well.
    weight = weight * np.where((steps == 0) | (2.0 * steps == grid), 1.0, 2.0)
    return theta, weight / weight.real.sum(1, keepdims=True)


def conditional_moments(
    A: NDArray[np.complex128],
    B: NDArray[np.complex128],
    C: NDArray[np.complex128],
    weight: NDArray[np.complex128],
    center: float,
) -> Moments:
    """Moments given the sum, from cumulants at every angle (S, L) or (L,); S independent shuffles are added up."""
    first = (weight * A).real.sum(-1)
    second = (weight * (A**2 + B)).real.sum(-1)
    third = (weight * (A**3 + 3.0 * A * B + C)).real.sum(-1)
    return Moments(
        center + float(np.sum(first)),
        max(0.0, float(np.sum(second - first**2))),
        float(np.sum(third - 3.0 * second * first + 2.0 * first**3)),
    )


def _blocks(width: Ints, limit: int) -> list[slice]:
    """Cut positions into runs whose widths sum to at most the limit (or are of one position)."""
    blocks, start, filled = [], 0, 0
    for position, size in enumerate(width.tolist()):
        if position > start and filled + size > limit:
            blocks.append(slice(start, position))
            start, filled = position, 0
        filled += size
    blocks.append(slice(start, width.size))
    return blocks


def upper_tail(statistic: float, null: Moments) -> float:
    """P(statistic or more) under a null of these moments: the shifted gamma (Pearson III) distribution that has them.

    A sum of many small squared deviations is close to a weighted sum of chi-squares, for which three moments are
    enough into the far tail (Kazi-Aoual et al., "Refined approximations to permutation tests for multivariate
    inference", CSDA 20, 1995). A null without spread has p = 1: nothing can be said.
    """
    if null.variance <= 1e-12 * max(null.mean, 1e-300) ** 2:
        return 1.0
    z = (statistic - null.mean) / np.sqrt(null.variance)
    skewness = null.third / null.variance**1.5
    if abs(skewness) < _SYMMETRIC:
        return float(ndtr(-z))
    shape = 4.0 / skewness**2
    distance = shape + np.sign(skewness) * z * np.sqrt(shape)
    if distance <= 0.0:
        return 1.0 if skewness > 0 else 0.0
    return float(gammaincc(shape, distance) if skewness > 0 else gammainc(shape, distance))


@dataclass(frozen=True)
class Relevance:
    """What a field alone says about the label.

    Attributes:
        plug_in: I(X; Y) as estimated from the counts, nats.
        null: its moments if the field were noise.
        p_value: of a value this high, if the field were noise.
    """

    plug_in: float
    null: Moments
    p_value: float

    @property
    def corrected(self) -> float:
        """Estimate less what noise of the same counts gives: 0 on average for noise, so negative at times; nats."""
        return self.plug_in - self.null.mean

    @property
    def z(self) -> float:
        """Corrected estimate in standard deviations of the null."""
        return self.corrected / self.null.variance**0.5 if self.null.variance > 0 else 0.0


def relevance(table: LabelTable) -> Relevance:
    """Estimate I(X; Y) and test it against shuffled labels."""
    plug_in = information_about_label(table)
    null = permutation_null(table.total, table.positives)
    return Relevance(plug_in, null, upper_tail(plug_in, null))


def adjusted_p_values(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down p-values (1979), any shape: below a level, at most that chance of one false find in all."""
    p = np.asarray(p_values, dtype=np.float64)
    flat = p.ravel()
    order = np.argsort(flat, kind="stable")
    stepped = np.maximum.accumulate(flat[order] * np.arange(flat.size, 0, -1))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.reshape(p.shape)
