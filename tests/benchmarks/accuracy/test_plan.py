"""Which runs are still to be done, and which config they choose: functions of the ledger alone."""

import math

import pytest
from planned import DATA, LEDGER, TASK, done, l2, search_by, want

from benchmarks.accuracy.ledger import Ledger
from benchmarks.accuracy.plan import GUARD_EPOCHS, GUARD_SEEDS, Want, expected, next_runs, settled
from benchmarks.accuracy.runs import Spec
from benchmarks.accuracy.tuning import NEAR, TABLE_SEEDS, choose, same


def test_trials_come_first_then_the_seeds_of_the_best_then_nothing(ledger: Ledger) -> None:
    specs = next_runs(want(), ledger)
    assert [(spec.purpose, spec.seed) for spec in specs] == [("trial", 1)] * 3
    for spec, loss in zip(specs, (0.4, 0.5, 0.6), strict=True):
        ledger.append(done(spec, loss))
    chance = next_runs(want(), ledger)  # how much the best one's random numbers are worth
    assert [(spec.purpose, spec.seed, spec.config) for spec in chance] == [
        ("trial", seed, specs[0].config) for seed in (2, 3)
    ]
    assert expected(want(), ledger) == 4
    for spec in chance:
        ledger.append(done(spec, 0.41))
    chosen = next_runs(want(), ledger)
    assert [(spec.purpose, spec.seed) for spec in chosen] == [("seed", 11), ("seed", 12)]
    assert all(spec.config == specs[0].config for spec in chosen)
    assert expected(want(), ledger) == 2
    for spec in chosen:
        ledger.append(done(spec, 0.4))
    assert next_runs(want(), ledger) == []
    assert expected(want(), ledger) == 0


def test_a_table_grows_from_three_trials_to_more_without_running_one_again(ledger: Ledger) -> None:
    def law(spec: Spec) -> float:
        return 0.5 + 0.1 * abs(math.log10(l2(spec) / 1e5)) + 0.001 * spec.config["model"].get("dropout", 0.0)

    ran: list[Spec] = []
    before: list[str] = []
    for number in (3, 6, 9):
        ran += search_by(ledger, law, trials=number)
        assert len({spec.key for spec in ran}) == len(ran)
        points = [same(config) for config in want(trials=number).search(list(ledger)).configs]
        points = points[: number + 1]  # a rung more than three; steps of the rate come after
        assert points[: len(before)] == before
        before = points


def test_what_the_ledger_held_before_is_the_beginning_of_the_search() -> None:
    known = [line for line in Ledger(LEDGER) if line.purpose == "trial" and line.model == "DCNv2"]
    first = [line for line in known if "calibrated" not in line.config["train"]][:1]
    ((task, data, rows),) = {(line.task, line.data, line.rows["train"]) for line in first}
    trials = Want(task, data, rows, "DCNv2", 7, 3).search([]).configs
    assert {str(config) for config in trials} <= {str(line.config) for line in known if line.task == task}


def test_near_ties_are_run_with_three_seeds_and_decided_by_their_mean(ledger: Ledger) -> None:
    first = next_runs(want(), ledger)
    for spec, loss in zip(first, (0.4, 0.4 + NEAR / 2, 0.4 + 3 * NEAR), strict=True):
        ledger.append(done(spec, loss))
    for spec in next_runs(want(), ledger):  # the best, whose seeds hardly differ
        ledger.append(done(spec, 0.4001))
    ties = next_runs(want(), ledger)
    assert [(spec.purpose, spec.seed, spec.config) for spec in ties] == [
        ("trial", seed, first[1].config) for seed in (2, 3)
    ]
    for spec in ties:  # behind at first, it is ahead with the other seeds
        ledger.append(done(spec, 0.3995))
    (config,) = {same(spec.config) for spec in next_runs(want(), ledger)}
    assert config == same(first[1].config)


@pytest.mark.parametrize(("spread", "near"), [(0.001, 1), (0.02, 2), (0.2, 3)])
def test_what_seeds_alone_may_do_is_measured_and_decides_how_many_configs_are_run_again(
    ledger: Ledger, spread: float, near: int
) -> None:
    first = next_runs(want(), ledger)
    for spec, loss in zip(first, (0.4, 0.43, 0.5), strict=True):
        ledger.append(done(spec, loss))
    for spec in next_runs(want(), ledger):
        ledger.append(done(spec, 0.4 + spread * (spec.seed - 2)))
    specs = next_runs(want(), ledger)
    again = {same(spec.config) for spec in specs if spec.purpose == "trial"}
    assert again == {same(spec.config) for spec in first[1:near]}


def test_a_config_that_the_seeds_of_the_table_find_out_gives_way_to_the_next(ledger: Ledger) -> None:
    first = next_runs(want(), ledger)

    def law(spec: Spec) -> float:
        place = [one.config for one in first].index(spec.config)
        return (0.40, 0.404, 0.5)[place] if spec.purpose == "trial" else (0.42, 0.405, 0.5)[place]

    for spec in first:
        ledger.append(done(spec, law(spec) - 0.003 * (spec is first[0])))
    chosen = []
    while specs := next_runs(want(), ledger):
        for spec in specs:
            ledger.append(done(spec, law(spec)))
        chosen += [spec.config for spec in specs if spec.purpose == "seed"]
    assert [chosen.count(one.config) for one in first] == [2, 2, 0]
    assert choose(want().search(list(ledger)), ledger) == first[1].config


def test_the_guard_compares_trainers_at_the_chosen_config_and_at_the_usual_one_before(ledger: Ledger) -> None:
    guard = Want(TASK, DATA, 26_000, "DCNv2", 7, 2, guard=True)
    (before,) = next_runs(guard, ledger)
    assert l2(before) == 1e4

    def law(spec: Spec) -> float:
        return 0.5 + abs(math.log10(l2(spec) / 1e6)) - 0.01 * ("calibrated" in spec.config["train"])

    search_by(ledger, law, model="DCNv2", trials=7)
    after, whole = next_runs(guard, ledger)
    assert whole.seed == TABLE_SEEDS[0]
    assert after.purpose == whole.purpose == "guard"
    assert l2(after) == l2(whole) > 1e5
    assert not {"calibrated"} & {*after.config["train"], *whole.config["train"]}
    assert after.config["train"]["epochs"] == GUARD_EPOCHS
    assert after.config["model"]["dropout"] == 0.0
    first, *_ = next_runs(want(model="DCNv2", trials=7), ledger)
    assert (whole.config["model"], whole.seed) == (first.config["model"], first.seed)
    assert (whole.config["train"]["recipe"], "averaging" in whole.config["train"]) == ("library", False)


@pytest.mark.parametrize(("ahead", "more"), [(-0.01, 0), (0.0, 0), (0.0001, GUARD_SEEDS - 1)])
def test_the_library_s_trainer_runs_on_more_seeds_where_it_is_ahead_on_the_first(
    ledger: Ledger, ahead: float, more: int
) -> None:
    guard = Want(TASK, DATA, 26_000, "DCNv2", 7, 2, guard=True)
    search_by(ledger, lambda spec: 0.5 + abs(math.log10(l2(spec) / 1e6)), model="DCNv2", trials=7)
    alike, whole = next_runs(guard, ledger)
    ours = done(next_runs(want(model="DCNv2", trials=7), ledger)[0], 0.5)
    assert (ours.purpose, ours.seed) == ("seed", TABLE_SEEDS[0])
    assert ours.validation is not None
    ledger.append(ours)
    found = ours.validation.model_copy(update={"auc": ours.validation.auc + ahead})
    for spec in (alike, whole):
        ledger.append(done(spec, 0.5).model_copy(update={"validation": found}))
    left = next_runs(guard, ledger)
    assert [spec.seed for spec in left] == list(TABLE_SEEDS[1 : 1 + more])
    assert {same(spec.config) for spec in left} <= {same(whole.config)}


def test_a_trial_that_failed_is_never_chosen(ledger: Ledger) -> None:
    specs = next_runs(want(), ledger)
    for spec, loss in zip(specs, (None, 0.7, None), strict=True):
        ledger.append(done(spec, loss))
    beyond = next_runs(want(), ledger)
    assert [l2(spec) for spec in beyond] == [1e2]
    ledger.append(done(beyond[0], None))
    for spec in next_runs(want(), ledger):
        ledger.append(done(spec, 0.7))
    assert choose(want().search(list(ledger)), ledger) == specs[1].config


@pytest.mark.parametrize("when", ["trial", "seed"])
def test_a_config_of_which_a_run_fails_gives_way_to_the_next(ledger: Ledger, when: str) -> None:
    first = next_runs(want(), ledger)
    for spec, loss in zip(first, (0.40, 0.45, 0.50), strict=True):
        ledger.append(done(spec, loss))
    while (specs := next_runs(want(), ledger)) and not (
        specs[0].purpose == "seed" and specs[0].config != first[0].config
    ):
        for spec in specs:
            fails = spec.purpose == when and spec.config == first[0].config and spec.seed in {2, 11}
            ledger.append(done(spec, None if fails else 0.40 if spec.config == first[0].config else 0.45))
    assert {same(spec.config) for spec in next_runs(want(), ledger)} == {same(first[1].config)}
    for spec in next_runs(want(), ledger):
        ledger.append(done(spec, 0.45))
    assert settled(list(ledger), 3) == same(first[1].config)


def test_where_all_trials_fail_nothing_is_chosen_and_nothing_more_tried(ledger: Ledger) -> None:
    while specs := next_runs(want(trials=7), ledger):
        for spec in specs:
            ledger.append(done(spec, None))
    assert choose(want(trials=7).search(list(ledger)), ledger) is None
    assert settled(list(ledger), 6) is None


def test_what_is_to_be_run_next_and_what_is_open_are_one_question_also_after_a_longer_search(ledger: Ledger) -> None:
    def law(spec: Spec) -> float:
        return 0.5 + 0.01 * abs(math.log10(l2(spec) / 1e5)) + 0.01 * int(spec.key[:4], 16) / 2**16

    while (specs := next_runs(want(trials=9), ledger)) and all(spec.seed == 1 for spec in specs):
        for spec in specs:
            ledger.append(done(spec, law(spec)))
    assert settled(list(ledger), 6) is None  # a longer search was left before its ties
    while specs := next_runs(want(trials=6), ledger):
        for spec in specs:
            ledger.append(done(spec, law(spec)))
    chosen = choose(want(trials=6).search(list(ledger)), ledger)
    assert chosen is not None
    assert settled(list(ledger), 6) == same(chosen)
    seeds = [line for line in ledger if line.purpose == "seed" and same(line.config) == same(chosen)]
    assert [line.seed for line in seeds] == [11, 12]


def test_a_model_without_a_space_goes_straight_to_its_seeds(ledger: Ledger) -> None:
    assert [spec.purpose for spec in next_runs(want("REACTION"), ledger)] == ["seed", "seed"]
