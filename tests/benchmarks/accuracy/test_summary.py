"""The document, the page and the picture, from made-up runs of which the answers are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from ledger_lines import AUC, MODELS, TASKS, line, timings, whole
from PIL import Image

from benchmarks.accuracy.picture import draw, front
from benchmarks.accuracy.plan import finished, guarded
from benchmarks.accuracy.report import markdown, plain
from benchmarks.accuracy.summary import best, chosen_runs, summarise


def verdict(document: dict, claim: str, task: str = "films-random") -> bool | None:
    (found,) = [one["holds"] for one in document["verdicts"] if (one["task"], one["claim"]) == (task, claim)]
    return found


def test_rows_are_means_and_spreads_over_seeds_with_what_was_counted_and_timed() -> None:
    document = summarise(whole(), timings(), TASKS, MODELS)
    rows = {row["model"]: row for row in document["rows"]}
    assert list(rows) == list(MODELS)
    row = rows["FinalMLP"]
    tests = [AUC["FinalMLP"] + 0.0002 * (seed - 13) - 0.003 for seed in range(11, 16)]
    assert row["test_auc_mean"] == pytest.approx(np.mean(tests))
    assert row["test_auc_std"] == pytest.approx(np.std(tests, ddof=1))
    assert (row["dataset"], row["split"], row["seeds"], row["trials"]) == ("films", "random", 5, 1)
    assert (row["parameters_inference"], row["parameters_dense"]) == (1_400_000, 1_100_000)
    assert row["latency_us"] == {"1": pytest.approx(26), "100": pytest.approx(1115), "1000": pytest.approx(11015)}
    assert row["latency_net_us"]["100"] == pytest.approx(1105)
    assert rows["LightGBM"]["latency_us"] is None
    json.dumps(document, allow_nan=False)
    wanted = {"dataset", "split", "model", "seeds", "test_auc_mean", "test_auc_std", "test_log_loss_mean"}
    wanted |= {"test_log_loss_std", "parameters_inference", "parameters_dense", "latency_us"}
    assert all(wanted <= set(row) for row in document["rows"])


def test_the_baseline_compared_with_is_chosen_on_validation_and_is_neither_ours_nor_outside() -> None:
    runs = chosen_runs(whole())
    assert best(runs) == "FinalNet"
    assert best(runs, among=("FM", "FwFM")) == "FwFM"
    document = summarise(whole(), timings(), TASKS, MODELS)
    against = {one["against"]: one for one in document["comparisons"]}
    assert set(against) == {"FinalNet", "FinalMLP", "DCNv2", "DNN-small", "LightGBM"}
    assert "best AUC on validation" in against["FinalNet"]["chosen"]
    assert document["better_of_fm_and_fwfm"] == {"films-random": "FwFM"}
    assert against["FinalNet"]["auc"]["mean"] == pytest.approx(AUC["REACTION"] - AUC["FinalNet"])
    assert against["FinalMLP"]["dense_ratio"] == pytest.approx(6_000 / 1_100_000)
    assert against["FinalMLP"]["latency_ratio"]["100"]["value"] == pytest.approx(11 / 1105)


def test_claims_hold_or_not_as_the_figures_say() -> None:
    document = summarise(whole(), timings(), TASKS, MODELS)
    for claim in ("auc", "log_loss", "auc_above", "merged", "dense_ratio DCNv2", "latency 1000 FinalMLP"):
        assert verdict(document, claim) is True, claim
    assert verdict(document, "parameters_ratio FinalMLP") is True
    assert verdict(document, "parameters_ratio DNN-small") is False  # its tables are as large as ours
    assert verdict(document, "half", "all") is True  # one of two tasks
    worse = summarise(whole(REACTION=-0.01), timings(), TASKS, MODELS)
    for claim in ("auc", "log_loss", "auc_above"):
        assert verdict(worse, claim) is False, claim
    assert verdict(worse, "half", "all") is None  # the other task may still be ahead
    near = summarise(whole(REACTION=-0.0023), timings(), TASKS, MODELS)
    assert verdict(near, "auc") is False  # the interval is above -0.001, the mean below 0
    assert verdict(near, "log_loss") is True


def test_the_first_table_has_a_task_in_a_line_with_the_larger_of_both_ratios_and_its_claims_counted() -> None:
    document = summarise(whole(DCNv2=-0.002), timings(), TASKS, MODELS)
    holds = [one["holds"] for one in document["verdicts"] if one["task"] == "films-random"]
    rows = [line for line in markdown(document).partition("## films")[0].splitlines() if line.startswith("| films")]
    (cells,) = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[:2] == ["films-random", f"{AUC['REACTION'] - 0.003:.4f}"]
    for cell, difference in zip(cells[2:4], ("+0.0020 (", "-0.0020 ("), strict=True):
        assert cell.startswith(difference)
        assert cell.endswith(") FinalNet")
    ours, theirs = 306_000, {"FinalMLP": 1_400_000, "DCNv2": 1_230_000}
    assert cells[4].startswith(f"{AUC['REACTION'] - AUC['LightGBM']:+.4f} (")
    assert float(cells[5]) == pytest.approx(ours / theirs["DCNv2"], rel=0.01)
    assert float(cells[6]) == pytest.approx(6_000 / 930_000, rel=0.01)
    assert float(cells[7]) == pytest.approx(11 / 935, rel=0.01)
    assert [int(cell) for cell in cells[8:]] == [holds.count(value) for value in (True, False, None)]
    assert "At a glance" not in markdown(summarise([], {}, TASKS, MODELS))


def test_a_claim_about_latency_has_to_hold_by_processor_time_too() -> None:
    table = timings()
    ours = table["tasks"]["films-random"]["models"]["REACTION"]["latency"]
    ours["100"]["processor_blocks"] = [500.0] * 20
    document = summarise(whole(), table, TASKS, MODELS)
    assert verdict(document, "latency 100 FinalMLP") is False
    assert verdict(document, "latency 1000 FinalMLP") is True


def test_the_merged_tower_is_compared_with_its_pair_seed_by_seed() -> None:
    (pair,) = summarise(whole(), timings(), TASKS, MODELS)["pairs"]
    assert pair["auc"]["mean"] == pytest.approx(0.0005)
    assert pair["auc"]["low"] == pytest.approx(0.0005)  # the same rows and the same seeds on both sides
    assert pair["auc"]["towers"] == pytest.approx(0.775)


def test_what_teaches_and_a_calibration_are_compared_with_ours_on_the_same_rows_and_seeds() -> None:
    lines = whole()
    document = summarise(lines, timings(), TASKS, MODELS)
    assert [(one["other"], one["seeds"], one.get("kinds")) for one in document["beside"]] == [
        ("teachers", 5, None),
        ("calibrated", 5, ["affine"]),
    ]
    for one in document["beside"]:  # as the pair's, which they are made of here
        assert one["auc"]["mean"] == one["auc"]["low"] == one["auc"]["high"] == pytest.approx(0.0005)
    assert "| films-random | ours, calibrated (affine) |" in markdown(document)
    for line_ in lines:
        line_["facts"] = {}
    assert summarise(lines, timings(), TASKS, MODELS)["beside"] == []


def test_what_is_not_run_is_said_and_never_guessed() -> None:
    lines = [one for one in whole() if one["model"] != "FinalMLP" and not (one["model"] == "DNN" and one["seed"] > 12)]
    document = summarise(lines, {}, TASKS, MODELS)
    said = {(one["task"], one["model"], one["what"]) for one in document["missing"]}
    assert {("films-random", "FinalMLP", "not run"), ("films-random", "DNN", "2 of 5 seeds")} <= said
    assert ("films-random", "DCNv2", "latency not measured") in said
    assert {model for task, model, what in said if (task, what) == ("ads-time", "not run")} == set(MODELS)
    assert verdict(document, "parameters_ratio FinalMLP") is None
    assert verdict(document, "latency 100 DCNv2") is None
    assert verdict(document, "parameters_ratio DCNv2") is True  # the ledger's own counts
    assert verdict(document, "auc", "ads-time") is None
    page = markdown(document)
    assert "FinalMLP" in page.partition("## Not run yet")[2]
    assert "has not been measured" in page
    assert markdown(summarise([], {}, TASKS, MODELS))


def test_runs_on_other_data_or_of_a_config_with_fewer_seeds_are_no_part_of_the_table() -> None:
    old = [line("films-random", "DNN", seed, data="d0", shift=0.1) for seed in range(11, 16)]
    fewer = [line("films-random", "DNN", seed, config={"model": {"width": 99}}) for seed in (11, 12)]
    runs = chosen_runs([*old, *fewer, *whole()])
    assert [one["seed"] for one in runs["DNN"]] == [11, 12, 13, 14, 15]
    assert {one["config"]["model"]["width"] for one in runs["DNN"]} == {10}
    assert {one["data"] for one in runs["DNN"]} == {"d1"}


def test_guards_show_the_library_s_trainer_and_models_below_logistic_regression() -> None:
    config = guarded({"model": {"width": 10}, "train": {}})
    guard = line("films-random", "DNN", 1, purpose="guard", config=config, facts={"library": {"auc": 0.7815}})
    usual = finished({"model": {"width": 10}, "train": {}})
    ends = [line("films-random", "DNN", seed, purpose="guard", config=usual, shift=0.0007) for seed in (12, 13)]
    document = summarise([*whole(FinalNet=-0.03), guard, *ends], timings(), TASKS, MODELS)
    found = {one["model"]: one for one in document["guards"]}
    assert (found["DNN"]["ours_same_seed"], found["DNN"]["library"]) == (pytest.approx(0.7786), 0.7815)
    page = markdown(document).partition("## Guard")[2]
    dnn, net = (next(row for row in page.splitlines() if f"| {name} |" in row) for name in ("DNN", "FinalNet"))
    assert "-0.0029, **no**" in dnn
    assert "| 2 | 0.7809 | 0.7816 | -0.0007, yes | +0.0007 |" in dnn  # of the two seeds that both have
    assert net.count("**no**") == 1
    assert verdict(document, "guard floor") is verdict(document, "guard library") is False
    fine = summarise(whole(FM=-0.1), timings(), TASKS, MODELS)  # a shallow one may be
    assert verdict(fine, "guard floor") is True
    assert verdict(fine, "guard library") is None


def test_the_page_shows_every_model_and_says_which_claims_fail() -> None:
    page = markdown(summarise(whole(), timings(), TASKS, MODELS))
    for model in MODELS:
        assert f"| {model} |" in page
    assert "**does not hold**" in page
    assert "+0.0020" in page
    assert "0.7830 ± 0.0003" in page
    assert max(len(row) for row in page.splitlines() if not row.startswith("|")) <= 120


def test_the_terminal_gets_a_line_a_row_that_fits() -> None:
    document = summarise(whole(), timings(), TASKS, MODELS)
    text = plain(document).splitlines()
    assert [line.split()[1] for line in text[1:-1]] == list(MODELS)
    assert max(map(len, text)) <= 101
    verdicts = [one["holds"] for one in document["verdicts"]]
    assert (
        text[-1] == f"claims: {verdicts.count(True)} hold, {verdicts.count(False)} do not, {verdicts.count(None)} open"
    )


def test_a_front_is_what_nothing_beats() -> None:
    points = [(1.0, 0.5), (2.0, 0.4), (3.0, 0.7), (3.0, 0.8), (9.0, 0.8)]
    assert front(points) == [0, 3]


def test_the_picture_is_written_whatever_is_missing(tmp_path: Path) -> None:
    document = summarise([*whole(), *whole("ads-time")], timings(), TASKS, MODELS)
    assert draw(document, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        width, height = picture.size
    assert width > 1200
    assert height > 900
    assert not draw(summarise([], {}, TASKS, MODELS), tmp_path / "b.png")


def test_lightgbm_is_a_line_across_every_picture(tmp_path: Path) -> None:
    found = {}
    for name, lines in (("with", whole()), ("without", [one for one in whole() if one["model"] != "LightGBM"])):
        draw(summarise(lines, timings(), TASKS, MODELS), tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        red, green, blue = np.moveaxis(pixels, 2, 0)
        greenish = (green > blue + 20) & (green >= red)  # nothing else in the picture is
        found[name] = int(greenish.any(0).sum())  # columns of pixels that it crosses
    assert found["with"] > 500
    assert found["without"] == 0
