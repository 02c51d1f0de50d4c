"""Tables of every kind, drawn by a seed; where the law is known, so is the best possible model.

Effects are in log-odds. Sizes are such that a run takes from a second to a few minutes on one core.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from sklearn.datasets import load_breast_cancer, load_digits, make_classification, make_friedman1

from training.datasets.config import DataConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

LABEL, PART = "the label", "part"
SHARES: Final = (0.6, 0.2, 0.2)


@dataclass(frozen=True)
class Made:
    """A table before it is written.

    Attributes:
        columns: name -> (N,) values.
        label: (N,) 0 or 1.
        chance: (N,) true probabilities, or None where the law is not known.
        kinds: name -> kind of the field; categorical if not given.
        context: names of the fields on the context side.
        options: further keys of the `[data]` section.
        part: (N,) names of the rows' splits, drawn if None.
    """

    columns: Mapping[str, NDArray[Any]]
    label: NDArray[np.uint8]
    chance: NDArray[np.float64] | None
    kinds: Mapping[str, str]
    context: frozenset[str]
    options: Mapping[str, Any]
    part: NDArray[Any] | None = None

    def write(self, folder: Path, seed: int) -> tuple[DataConfig, dict[str, NDArray[np.float64]]]:
        """Write the table as CSV.

        Returns:
            The `[data]` section, and the true probabilities of each split where they are known.
        """
        rng = np.random.default_rng([seed, 7])
        part = rng.choice(["train", "valid", "test"], len(self.label), p=SHARES) if self.part is None else self.part
        frame = pl.DataFrame({**self.columns, LABEL: self.label, PART: part})
        frame.write_csv(folder / "table.csv")
        fields = [
            {
                "name": name,
                "kind": self.kinds.get(name, "categorical"),
                "side": "context" if name in self.context else "candidate",
                **({"buckets": 20} if self.kinds.get(name) == "numeric" else {}),
            }
            for name in self.columns
        ]
        config = DataConfig.model_validate(
            {
                "dataset": "table",
                "path": str(folder / "table.csv"),
                "min_count": 2,
                "split": {"kind": "given", "column": PART, "test": "test"},
                "table": {"label": LABEL},
                "fields": fields,
                **self.options,
            }
        )
        known = {} if self.chance is None else {name: self.chance[part == name] for name in ("train", "valid", "test")}
        return config, known


def made(
    rng: np.random.Generator,
    columns: Mapping[str, NDArray[Any]],
    logit: NDArray[np.float64] | float = 0.0,
    *,
    rate: float = 0.3,
    label: NDArray[Any] | None = None,
    kinds: Mapping[str, str] | None = None,
    context: Callable[[int], bool] = lambda place: place % 2 == 0,
    **options: Any,
) -> Made:
    """Draw labels by log-odds, shifted to a base rate, unless labels are given."""
    chance = None
    if label is None:
        logit = np.asarray(logit)
        chance = 1.0 / (1.0 + np.exp(-logit - _shift(logit, rate)))
        label = rng.random(len(chance)) < chance
    names = frozenset(name for place, name in enumerate(columns) if context(place))
    return Made(columns, np.asarray(label).astype(np.uint8), chance, kinds or {}, names, options)


def _shift(logit: NDArray[np.float64], rate: float) -> float:
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if (1.0 / (1.0 + np.exp(-logit - middle))).mean() < rate else (low, middle)
    return low


def zipf(rng: np.random.Generator, rows: int, size: int, power: float = 1.0) -> NDArray[np.int64]:
    """Codes (N,) of a long tail."""
    chances = 1.0 / (np.arange(size) + 3.0) ** power
    return rng.permutation(size)[rng.choice(size, rows, p=chances / chances.sum())]


def effect(rng: np.random.Generator, codes: NDArray[np.int64], deviation: float) -> NDArray[np.float64]:
    """Draw an effect a value and look it up (N,)."""
    return np.asarray(rng.normal(0.0, deviation, int(codes.max()) + 1)[codes])


def additive(rng: np.random.Generator, rows: int, sizes: tuple[int, ...], rate: float = 0.3) -> Made:
    """What logistic regression is right about: effects that add up."""
    codes = {f"f{i}": zipf(rng, rows, size, 0.7) for i, size in enumerate(sizes)}
    logit = sum((effect(rng, c, 0.6) for c in codes.values()), np.zeros(rows))
    return made(rng, codes, logit, rate=rate)


def factors(rng: np.random.Generator, rows: int, users: int, items: int) -> Made:
    """Users and items with biases and tastes of four dimensions, and three fields beside them."""
    user, item = zipf(rng, rows, users, 0.6), zipf(rng, rows, items, 0.8)
    logit = effect(rng, user, 0.5) + effect(rng, item, 0.7)
    for _ in range(4):
        logit += effect(rng, user, 0.75) * effect(rng, item, 0.75)
    other = {f"other {i}": rng.integers(0, 10, rows) for i in range(3)}
    logit += effect(rng, other["other 0"], 0.3)
    return made(rng, {"user": user, "item": item, **other}, logit)


def new_values(rng: np.random.Generator, rows: int) -> Made:
    """Users come and go: in validation and test nearly all are new, as in a split by time."""
    order = np.arange(rows)
    part = np.where(order < 0.6 * rows, "train", np.where(order < 0.8 * rows, "valid", "test"))
    user = order // 60 + rng.integers(0, 3, rows)  # three users at any time
    item = zipf(rng, rows, 3000, 0.8)
    genre = rng.integers(0, 20, 3000)[item]
    bias = rng.normal(0.0, 0.8, int(user.max()) + 1)[user]
    logit = bias + effect(rng, item, 0.8) + effect(rng, genre, 0.4)
    return replace(made(rng, {"user": user, "item": item, "genre": genre}, logit), part=part)


def numbers(rng: np.random.Generator, rows: int) -> Made:
    """Nothing but numbers: Friedman's first function."""
    x, y = make_friedman1(rows, n_features=8, random_state=int(rng.integers(2**31)))
    return made(rng, _columns(x), (y - y.mean()) / y.std() * 1.5, kinds=_numeric(8))


def clusters(rng: np.random.Generator, rows: int) -> Made:
    """scikit-learn's clusters at corners of a hypercube: no closed form."""
    x, y = make_classification(
        rows, 12, n_informative=5, n_clusters_per_class=4, flip_y=0.1, random_state=int(rng.integers(2**31))
    )
    return made(rng, _columns(x), label=y, kinds=_numeric(12))


def noise(rng: np.random.Generator, rows: int) -> Made:
    """Labels that no field says anything about."""
    codes = {f"n{i}": rng.integers(0, size, rows) for i, size in enumerate((5, 50, 500, rows))}
    return made(rng, codes, np.zeros(rows))


def identifiers(rng: np.random.Generator, rows: int) -> Made:
    """Half of the fields have a value of its own in (nearly) every row, all of them in the vocabulary."""
    useful = {f"f{i}": zipf(rng, rows, 40) for i in range(3)}
    logit = sum((effect(rng, c, 0.7) for c in useful.values()), np.zeros(rows))
    ids = {f"id{i}": rng.permutation(rows) for i in range(3)}
    return made(rng, {**useful, **ids}, logit, min_count=1)


def _columns(x: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {f"x{i}": x[:, i].round(6) for i in range(x.shape[1])}


def _numeric(count: int) -> dict[str, str]:
    return {f"x{i}": "numeric" for i in range(count)}


def _constant(rng: np.random.Generator) -> Made:
    codes = zipf(rng, 20_000, 30)
    columns = {"always": np.full(20_000, 7), "f": codes, "empty": np.full(20_000, "")}
    return made(rng, columns, effect(rng, codes, 1.0))


def _odd_names(rng: np.random.Generator) -> Made:
    names = ["", " ", "a.b", "[x]", 'q"uo', "ünï", "label", "tables.0", "a\nb"][1:]
    codes = {name: rng.integers(0, 12, 10_000) for name in names}
    return made(rng, codes, sum((effect(rng, c, 0.5) for c in codes.values()), np.zeros(10_000)))


def _side(rng: np.random.Generator, *, context: bool) -> Made:
    codes = {f"f{i}": zipf(rng, 20_000, 60) for i in range(4)}
    logit = sum((effect(rng, c, 0.6) for c in codes.values()), np.zeros(20_000))
    return made(rng, codes, logit, context=lambda _: context)


def _one_field(rng: np.random.Generator) -> Made:
    codes = zipf(rng, 30_000, 2000)
    return made(rng, {"only": codes}, effect(rng, codes, 1.0))


def _below_min_count(rng: np.random.Generator) -> Made:
    codes = {"a": zipf(rng, 20_000, 500), "b": zipf(rng, 20_000, 20)}
    return made(rng, codes, effect(rng, codes["b"], 0.8), min_count=20_000)


def _real(load: Callable[..., Any]) -> Callable[[np.random.Generator], Made]:
    def build(rng: np.random.Generator) -> Made:
        x, y = load(return_X_y=True)
        return made(rng, _columns(x), label=np.asarray(y) % 2, kinds=_numeric(x.shape[1]))

    return build


TABLES: Final[dict[str, Callable[[np.random.Generator], Made]]] = {
    "30 rows": lambda rng: additive(rng, 50, (3, 4)),
    "500 rows": lambda rng: additive(rng, 800, (5, 10, 20)),
    "5,000 rows": lambda rng: additive(rng, 8000, (5, 20, 50, 100)),
    "additive": lambda rng: additive(rng, 80_000, (10, 30, 100, 300, 3000)),
    "additive, large": lambda rng: additive(rng, 500_000, (10, 100, 1000, 10_000)),
    "1 click in 1,000": lambda rng: additive(rng, 400_000, (10, 100, 1000), rate=1e-3),
    "1 click in 10,000": lambda rng: additive(rng, 500_000, (10, 100, 1000), rate=1e-4),
    "9 clicks in 10": lambda rng: additive(rng, 40_000, (10, 100, 1000), rate=0.9),
    "factors": lambda rng: factors(rng, 120_000, 2000, 1000),
    "factors, sparse": lambda rng: factors(rng, 60_000, 8000, 4000),
    "new values": lambda rng: new_values(rng, 60_000),
    "numbers": lambda rng: numbers(rng, 30_000),
    "clusters": lambda rng: clusters(rng, 30_000),
    "noise": lambda rng: noise(rng, 20_000),
    "identifiers": lambda rng: identifiers(rng, 40_000),
    "one field": _one_field,
    "no candidate fields": lambda rng: _side(rng, context=True),
    "no context fields": lambda rng: _side(rng, context=False),
    "constant fields": _constant,
    "below min_count": _below_min_count,
    "odd names": _odd_names,
    "breast cancer": _real(load_breast_cancer),
    "digits": _real(load_digits),
}
"""Name -> the table drawn by a generator of random numbers."""

REAL: Final = ("criteo", "avazu", "movielens_100k", "movielens_latest", "movielens_latest_tags")
"""Published experiments, which need REACTION_DATA_DIR; `<name>:time` and `<name>:random` are other splits of them."""
