"""How a baseline is tuned: in stages, each a function of what the ledger says of those before it.

1. A ladder of the strength of the tables' L2, which decides more than all else on small samples: three rungs, then one
   more beyond an end for as long as the best rung is that end, up to the last rung that is named.
2. The best rung once more, stopped by the log loss that is left once calibrated, and calibrated. Where that is better
   the ladder is another one: L2 no longer has to hold down how sure a model is, so the rungs beside it are tried in the
   same way, and further ones for as long as the best is at an end of these.
3. Sobol's points over everything else, around the better of these, L2 within a factor of `AROUND` of the best rung.
4. The best so far with another learning rate: a step beyond the least or the greatest that was tried, as long as the
   best is there.
5. The best so far with the dropout at the end of its range, where it is at an end of what was tried.
6. The best so far trained by another recipe, the library's own. Where that is better, with L2 by a factor of `AROUND`
   to either side as well, and further for as long as the best is at an end of these.
7. Where several seeds decide for a config of 1 or 2 that is not the one around which the points lie: points around it.

Trials never change and but for the last steps only grow: more are asked for, more points follow; an interrupted search
goes on. What is best in 1 to 6 is so at one seed; what several decide for, and which config is taken, says `tuning`.
A model without a ladder has its usual config and Sobol's points over all of its dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.space import DIGITS, Linear, Log, changed, points

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.accuracy.fitted import Config
    from benchmarks.accuracy.space import Dimension

BEYOND = 2.0
"""Factor of the learning rate by which it is tried beyond what is best."""

MOST_BEYOND = 3
"""Most such steps."""

AROUND = 3.0
"""Factor by which a point's L2 may be above or below the best rung."""

SPREAD = 40
"""Scrambles the points around a rung: the least seed whose first three points differ in every choice of a model's, and
never leave out batch norm and averaging at once. Chosen before any of them was run."""


@dataclass(frozen=True)
class Ladder:
    """Values of one setting, of which the usual one is among those that are tried first.

    Attributes:
        path: Of the setting.
        rungs: All that may be tried, ascending.
        first: The places of the first ones: from, and before which.
    """

    path: str
    rungs: tuple[float, ...]
    first: tuple[int, int]


@dataclass(frozen=True)
class Search:
    """What is to be tried, as far as that is known.

    Attributes:
        configs: In the order in which they are tried.
        whole: Whether these are all.
    """

    configs: list[Config]
    whole: bool


def search(
    defaults: Mapping[str, Any],
    space: Sequence[Dimension],
    number: int,
    loss: Callable[[Config], float | None],
    *,
    ladder: Ladder | None = None,
    turn: Sequence[tuple[str, Any]] = (),
    climb: str = "",
    reach: str = "",
    recipe: Callable[[Config], Config] | None = None,
    decided: Config | None = None,
) -> Search:
    """The trials of a model, as far as the outcomes so far decide them.

    Args:
        defaults: The usual config; what the space does not name stays as it is.
        space: What differs; without it there is one config.
        number: How many trials at least: the first rungs, the turn, and points; rungs beyond the first come on top, and
            steps of the climb.
        loss: A config's validation log loss, infinite where it failed, None where it has not been tried.
        ladder: See `Ladder`; None for points alone.
        turn: What the trial after the ladder changes of its best.
        climb: The setting that is tried beyond what is best in the end, where there are points.
        reach: The setting of the space that is tried at the end of its range after that, likewise.
        recipe: Makes of a config one that is trained by another recipe: tried after that, likewise.
        decided: What several seeds decide for of all that was tried, if they do.
    """
    usual = changed(defaults, ())
    if not space:
        return Search([usual], whole=True)
    if ladder is None:
        found = [changed(defaults, point) for point in points(space, max(number - 1, 0))]
        return Search([usual, *found][:number], whole=True)
    start, end = ladder.first
    configs = _rungs(defaults, ladder, start, end)
    configs.sort(key=lambda config: config != usual)  # the usual one first
    if number < len(configs):
        return Search(configs[:number], whole=True)
    left = number - (end - start)
    best = _walked(defaults, ladder, configs, loss)
    if best is not None and turn and left > 0:
        left -= 1
        beside, best = _turned(best, changed(best, turn), ladder, loss)
        configs += beside
    if best is None:
        return Search(configs, whole=False)
    tuned = Search([*configs, *_around(best, space, ladder.path, left)], whole=True)
    if climb and left > 0:
        tuned = _climbed(tuned, climb, loss)
        tuned = _reached(tuned, [part for part in space if part.path == reach], loss)
        tuned = tuned if recipe is None else _followed(tuned, recipe, ladder.path, loss)
    if not tuned.whole or decided == best or decided not in configs:
        return tuned
    return Search([*tuned.configs, *_around(decided, space, ladder.path, left)], whole=True)


def _around(centre: Config, space: Sequence[Dimension], path: str, number: int) -> list[Config]:
    """So many points around a config: a ladder's setting within `AROUND` of its own, all else anywhere."""
    section, key = path.split(".")
    others = [part for part in space if part.path != path]
    around = (*others, Log(path, centre[section][key] / AROUND, centre[section][key] * AROUND))
    return [changed(centre, point) for point in points(around, number, SPREAD)]


def _rungs(config: Mapping[str, Any], ladder: Ladder, start: int, end: int) -> list[Config]:
    """A config on the rungs from one place to before another."""
    return [changed(config, [(ladder.path, value)]) for value in ladder.rungs[start:end]]


def _walked(
    config: Mapping[str, Any], ladder: Ladder, tried: list[Config], loss: Callable[[Config], float | None]
) -> Config | None:
    """Add rungs to those tried, one beyond an end for as long as the best is that end.

    Args:
        config: What is on the rungs.
        ladder: The rungs.
        tried: The config on neighbouring rungs, in any order; grows.
        loss: See `search`.

    Returns:
        The best, or None while a loss is not known.
    """
    section, key = ladder.path.split(".")
    while True:
        losses = [loss(one) for one in tried]
        known = [value for value in losses if value is not None]
        if len(known) < len(tried):
            return None
        places = [ladder.rungs.index(one[section][key]) for one in tried]
        best = known.index(min(known))
        beyond = {min(places): min(places) - 1, max(places): max(places) + 1}.get(places[best])
        if beyond is None or not 0 <= beyond < len(ladder.rungs) or min(known) == float("inf"):
            return tried[best]
        tried += _rungs(config, ladder, beyond, beyond + 1)


def _turned(
    best: Config, turned: Config, ladder: Ladder, loss: Callable[[Config], float | None]
) -> tuple[list[Config], Config | None]:
    """What turns away from the best so far, and where it is better the rungs beside it.

    Args:
        best: So far.
        turned: On a rung.
        ladder: The rungs.
        loss: See `search`.

    Returns:
        The configs that are tried, and the best of all; None while a loss is not known.
    """
    before, after = loss(best), loss(turned)
    if before is None or after is None:
        return [turned], None
    if after >= before:
        return [turned], best
    section, key = ladder.path.split(".")
    place = ladder.rungs.index(turned[section][key])
    # Those above and below are tried at once: from one alone nobody knows the way.
    beside = [turned, *_rungs(turned, ladder, max(place - 1, 0), place), *_rungs(turned, ladder, place + 1, place + 2)]
    found = _walked(turned, ladder, beside, loss)
    return beside, found


def _climbed(search: Search, path: str, loss: Callable[[Config], float | None]) -> Search:
    """The best of a search once more, a setting a step beyond all that was tried, as long as the best is at an end."""
    section, key = path.split(".")
    configs = list(search.configs)
    for steps in range(MOST_BEYOND + 1):
        known = [value for config in configs if (value := loss(config)) is not None]
        if len(known) < len(configs):
            return Search(configs, whole=False)
        best = configs[known.index(min(known))]
        if min(known) == float("inf"):
            break
        tried = [config[section][key] for config in configs]
        factor = {min(tried): 1 / BEYOND, max(tried): BEYOND}.get(best[section][key])
        if factor is None or steps == MOST_BEYOND:
            break
        configs.append(changed(best, [(path, float(f"{factor * best[section][key]:.{DIGITS}g}"))]))
    return Search(configs, whole=True)


def _reached(search: Search, parts: Sequence[Dimension], loss: Callable[[Config], float | None]) -> Search:
    """The best of a search once more, a setting at the end of its range, where the best is at an end of those tried."""
    for part in parts:
        best = _best(search, loss)
        if best is None or not isinstance(part, Linear):
            return search
        section, key = part.path.split(".")
        tried = [config[section][key] for config in search.configs]
        end = {min(tried): part.low, max(tried): part.high}.get(best[section][key])
        last = changed(best, [(part.path, end)])
        if end is not None and len(set(tried)) > 1 and last not in search.configs:
            search = Search([*search.configs, last], whole=loss(last) is not None)
    return search


def _best(search: Search, loss: Callable[[Config], float | None]) -> Config | None:
    """The best of a whole search; None where it is not whole, or all failed."""
    known = [value for config in search.configs if (value := loss(config)) is not None]
    if not search.whole or min(known) == float("inf"):
        return None
    return search.configs[known.index(min(known))]


def _followed(
    search: Search, recipe: Callable[[Config], Config], path: str, loss: Callable[[Config], float | None]
) -> Search:
    """The best of a search by another recipe, and where that is better under other values of a setting."""
    before = _best(search, loss)
    if before is None:
        return search
    first = recipe(before)
    section, key = path.split(".")
    steps = range(-MOST_BEYOND, MOST_BEYOND + 1)
    rungs = tuple(float(f"{first[section][key] * AROUND**step:.{DIGITS}g}") for step in steps)
    tried, best = _turned(before, first, Ladder(path, rungs, first=(0, 0)), loss)
    return Search([*search.configs, *tried], whole=best is not None)
