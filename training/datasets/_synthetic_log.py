"""Builds the columns of `synthetic`'s log, one kind of field at a time, and keeps the truth about them.

N rows in R requests. A context field has R independent values, a candidate field N; both are written out per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.datasets.config import Kind, Side

Role = Literal["informative", "weak", "xor", "noise"]

CANDIDATES: Final = (2, 6)  # fewest and most candidates of a request
MISSING: Final = 0.02  # share of missing values, in the fields that have any
NEAR_COPY: Final = 1 / 300  # share of values that an inexact copy has wrong
TAGS: Final = 4  # most tags of a multi-valued field

# Drawn as names: no name tells what its field is.
WORDS: Final = (
    *("acacia", "alder", "almond", "amber", "apple", "ash", "aspen", "azalea", "bamboo", "banyan", "basalt", "bay"),
    *("beech", "birch", "cedar", "cherry", "chestnut", "citrus", "clover", "coral", "cypress", "dahlia", "elder"),
    *("elm", "fern", "fig", "flint", "fir", "garnet", "ginger", "ginkgo", "granite", "hazel", "heather", "holly"),
    *("iris", "ivy", "jade", "jasmine", "juniper", "larch", "laurel", "lemon", "lilac", "linden", "lotus", "mallow"),
    *("maple", "marble", "myrtle", "nettle", "oak", "olive", "onyx", "opal", "orchid", "palm", "peach", "pearl"),
    *("pine", "plum", "poplar", "quartz", "quince", "reed", "rose", "rowan", "ruby", "sage", "slate", "spruce"),
    *("sumac", "teak", "thyme", "topaz", "tulip", "violet", "walnut", "willow", "yarrow", "yew"),
)


@dataclass(frozen=True)
class FieldTruth:
    """What a field really is.

    Attributes:
        name, kind, side: as in the data set's description.
        role: of the field itself; a copy has the role of its original.
        size: number of values it can take (of a number: 0).
        copy_of: the field it copies, if it is a copy.
        finer: the finer field that this one is a function of (a hierarchy), if any.
    """

    name: str
    kind: Kind
    side: Side
    role: Role
    size: int
    copy_of: str | None = None
    finer: str | None = None


def uniform(size: int) -> NDArray[np.float64]:
    """Equal chances (size,)."""
    return np.full(size, 1.0 / size)


def tail(size: int, offset: float = 3.0, power: float = 1.0) -> NDArray[np.float64]:
    """Long-tailed chances (size,): the k-th value's is proportional to 1 / (k + offset)^power (Zipf-Mandelbrot)."""
    weights = 1.0 / (np.arange(size, dtype=np.float64) + offset) ** power
    return np.asarray(weights / weights.sum())


class SyntheticLog:
    """A log under construction.

    Attributes:
        group: (N,) number of each row's request.
        logits: (N,) sum of the effects added so far.
        columns: name -> N texts, None where missing.
        truth: name -> what the field is.
        xor_effects: pair of names -> (N,) its part of the logits.
    """

    def __init__(self, rows: int, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 0xC7])
        self.rows = rows
        low, high = CANDIDATES
        sizes = self.rng.integers(low, high + 1, rows // low + 1)
        self.group = np.repeat(np.arange(sizes.size, dtype=np.int64), sizes)[:rows]
        self.requests = int(self.group[-1]) + 1
        self.logits = np.zeros(rows)
        self.columns: dict[str, list[str | None]] = {}
        self.truth: dict[str, FieldTruth] = {}
        self.xor_effects: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._names = iter(self.rng.permutation(WORDS).tolist())
        self._codes: dict[str, NDArray[np.int64]] = {}  # per request or per row, -1 where missing

    def side(self) -> Side:
        """Draw a side."""
        return "context" if self.rng.integers(2) else "candidate"

    def _units(self, side: Side) -> int:
        return self.requests if side == "context" else self.rows

    def _per_row(self, values: NDArray[np.float64] | NDArray[np.int64], side: Side) -> NDArray[np.float64]:
        return np.asarray(values[self.group] if side == "context" else values, dtype=np.float64)

    def _draw(self, chances: NDArray[np.float64], side: Side, missing: float = 0.0) -> NDArray[np.int64]:
        codes = self.rng.choice(chances.size, size=self._units(side), p=chances)
        if missing:
            codes[self.rng.random(codes.size) < missing] = -1
        return codes

    def _effects(self, chances: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
        """Effects of mean 0 and just this deviation under the chances, then a 0 for "missing" (code -1)."""
        raw = self.rng.normal(size=chances.size)
        raw -= chances @ raw
        return np.append(raw * deviation / np.sqrt(chances @ raw**2), 0.0)

    def _add_effect(self, effect: NDArray[np.float64], deviation: float, side: Side) -> None:
        """Add a drawn effect, scaled to the deviation."""
        self.logits += self._per_row((effect - effect.mean()) * deviation / effect.std(), side)

    def _add(self, truth: FieldTruth, texts: list[str | None]) -> str:
        """Write the field's texts, one a request or one a row."""
        if truth.side == "context":
            texts = [texts[request] for request in self.group.tolist()]
        self.truth[truth.name], self.columns[truth.name] = truth, texts
        return truth.name

    def _add_codes(self, codes: NDArray[np.int64], side: Side, role: Role, size: int, **known: str) -> str:
        """Name the values by random numbers, so that neither order nor size of a text tells anything."""
        name: str = next(self._names)
        prefix = str(self.rng.choice(["", name[0], f"{name}-"]))
        texts = [f"{prefix}{number}" for number in self.rng.permutation(3 * size)[:size].tolist()]
        self._codes[name] = codes
        lookup = np.array([*texts, None], dtype=object)
        return self._add(FieldTruth(name, "categorical", side, role, size, **known), lookup[codes].tolist())

    def categorical(
        self, role: Role, chances: NDArray[np.float64], deviation: float, side: Side, missing: float = 0.0
    ) -> str:
        """Add one value out of many; the deviation is its effect's, in logits. Returns the name."""
        codes = self._draw(chances, side, missing)
        if deviation:
            self.logits += self._per_row(self._effects(chances, deviation)[codes], side)
        return self._add_codes(codes, side, role, chances.size)

    def hierarchy(self, side: Side, coarse: int, chances: NDArray[np.float64], deviation: float) -> str:
        """Add an identifier whose effect is its class's plus its own, and the class. Returns the identifier's name."""
        parent = self.rng.integers(0, coarse, chances.size)
        codes = self._draw(chances, side)
        classes = np.bincount(parent, chances, coarse).astype(np.float64)
        effects = self._effects(classes, deviation)[parent]
        effects += self._effects(chances, deviation)[:-1]
        self.logits += self._per_row(effects[codes], side)
        name = self._add_codes(codes, side, "informative", chances.size)
        self._add_codes(parent[codes], side, "informative", coarse, finer=name)
        return name

    def number(self, role: Role, deviation: float) -> None:
        """Add a long-tailed count whose effect rises and falls with its logarithm."""
        side: Side = self.side()
        values = np.floor(np.exp(2.5 + 1.5 * self.rng.normal(size=self._units(side)))).astype(np.int64)
        values[self.rng.random(values.size) < MISSING] = -1
        if deviation:
            effect = np.where(values < 0, 0.0, np.sin(np.log1p(np.maximum(values, 0)) * 1.4))
            self._add_effect(effect, deviation, side)
        texts = [None if value < 0 else str(value) for value in values.tolist()]
        self._add(FieldTruth(next(self._names), "numeric", side, role, 0), texts)

    def tags(self, role: Role, deviation: float, size: int) -> None:
        """Add 0 to 4 different tags; the effect is the sum of the tags' effects."""
        side: Side = self.side()
        chances = tail(size, offset=5.0)
        # Gumbel's trick: the largest perturbed log-chances are draws without replacement.
        keys = np.log(chances)[None, :] + self.rng.gumbel(size=(self._units(side), size))
        picked = np.asarray(np.argsort(-keys, axis=1)[:, :TAGS], dtype=np.int64)
        count = np.asarray(self.rng.integers(0, TAGS + 1, picked.shape[0]), dtype=np.int64)
        if deviation:
            used = np.arange(TAGS) < count[:, None]
            self._add_effect(np.where(used, self._effects(chances, 1.0)[picked], 0.0).sum(1), deviation, side)
        texts = [
            "|".join(f"t{tag}" for tag in row[:length]) or None
            for row, length in zip(picked.tolist(), count.tolist(), strict=True)
        ]
        self._add(FieldTruth(next(self._names), "multi_valued", side, role, size), texts)

    def xor(self, sizes: tuple[int, int], weight: float) -> None:
        """Add two fields of equally likely values.

        Half of each field's values, at random, count as 1, the others as 0. The effect is +weight where both fields
        agree and -weight where they do not, so that a field alone says nothing about the label.
        """
        effect = np.full(self.rows, weight)
        names = []
        for size in sizes:
            side: Side = self.side()
            codes = self._draw(uniform(size), side)
            sign = np.ones(size)
            sign[self.rng.permutation(size)[: size // 2]] = -1.0
            effect *= self._per_row(sign[codes], side)
            names.append(self._add_codes(codes, side, "xor", size))
        self.logits += effect
        self.xor_effects[names[0], names[1]] = effect

    def copy(self, original: str, wrong: float = 0.0) -> None:
        """Add the same values under other texts; with `wrong`, that share of them is replaced by other rows'."""
        known = self.truth[original]
        codes = self._codes[original].copy()
        if wrong:
            hit = self.rng.random(codes.size) < wrong
            codes[hit] = self.rng.permutation(codes)[hit]
        self._add_codes(codes, known.side, known.role, known.size, copy_of=original)
