"""What the fused model begins from: the towers or random weights, whichever ends better on validation."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import tiny
import torch
from model_toys import SLOTS, clicks
from sklearn.metrics import log_loss, roc_auc_score

from training.config import load_config
from training.dtf import DtfConfig
from training.loader import PreparedData
from training.loop import train_reaction
from training.models.reaction import FusionForm, TowerPair
from training.phases.checkpoint import CheckpointStore
from training.phases.phase import NonFiniteLossError
from training.report import render_report
from training.runs import Run, open_run
from training.towers.fusing import STARTS
from training.towers.schedule import Schedule
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from training.dtf import Start
    from training.towers.result import DtfResult

VALID = clicks(400, seed=50)


class Spoilt(Schedule):
    """What begins from the towers says the same of every row, and no learning mends it."""

    def beginning(self, pair: TowerPair, start: Start) -> FusionForm:
        form = super().beginning(pair, start)
        if start == "towers":
            for branch in form.parallel:
                branch.mix.zero_()
                branch.cross.requires_grad_(requires_grad=False)
        return form


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What is monitored -> a directory with both towers, trained once: they know nothing of what follows them."""
    found = {monitor: tmp_path_factory.mktemp(monitor) for monitor in ("log_loss", "auc")}
    for monitor, where in found.items():
        with torch.random.fork_rng():
            toy(where, monitor=monitor).towers()
    return found


def toy(
    where: Path,
    told: list[tuple[str, str]] | None = None,
    *,
    kind: type[Schedule] = Schedule,
    after: dict[str, Path] | None = None,
    **given: Any,
) -> Schedule:
    def progress(phase: str, _done: int, _total: int, note: str) -> None:
        if told is not None:
            told.append((phase, note))

    torch.set_num_threads(1)
    monitor, dtf = given.pop("monitor", "log_loss"), {"widths": (8, 6), "council": 0, **given}
    if after is not None:
        shutil.copytree(after[monitor], where, dirs_exist_ok=True)
    return kind(
        SLOTS,
        clicks(1000),
        VALID,
        dtf=DtfConfig(**dtf),
        config=TrainConfig(
            batch_size=64, epochs=6, rate=3e-3, table_l2=1.0, half_scale_at=0.0, device="cpu", monitor=monitor
        ),
        seed=1,
        store=CheckpointStore(where, "toy", resume=True),
        progress=progress,
    )


def run(schedule: Schedule, pair: TowerPair | None = None) -> DtfResult:
    with torch.random.fork_rng():
        return schedule.run(pair)


def same(one: FusionForm, other: FusionForm) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def loss(form: FusionForm, monitor: str) -> float:
    with torch.no_grad():
        pctr = torch.sigmoid(form(torch.from_numpy(VALID.context_ids), torch.from_numpy(VALID.candidate_ids))).numpy()
    return -roc_auc_score(VALID.label, pctr) if monitor == "auc" else log_loss(VALID.label, pctr.astype("float64"))


@pytest.mark.parametrize("monitor", ["log_loss", "auc"])
@pytest.mark.parametrize("kind", [Schedule, Spoilt])
def test_both_are_tried_and_the_better_one_stays(
    kind: type[Schedule], monitor: str, trained: dict[str, Path], tmp_path: Path
) -> None:
    both = run(toy(tmp_path / "both", kind=kind, after=trained, monitor=monitor))
    alone = {
        start: run(toy(tmp_path / start, kind=kind, after=trained, monitor=monitor, fusion_start=start))
        for start in STARTS
    }
    assert {start: result.fusion_start for start, result in alone.items()} == {start: start for start in STARTS}
    losses = {start: loss(alone[start].form, monitor) for start in STARTS}
    best = min(STARTS, key=losses.__getitem__)
    assert abs(losses["towers"] - losses["afresh"]) > 0.001
    assert best == ("afresh" if kind is Spoilt else "towers")
    assert both.fusion_start == best
    assert same(both.form, alone[best].form)
    assert both.history == alone[best].history


def test_one_that_is_given_is_the_only_one_that_is_trained(trained: dict[str, Path], tmp_path: Path) -> None:
    for start, phase in (("towers", "fusion"), ("afresh", "fusion_afresh")):
        told: list[tuple[str, str]] = []
        run(toy(tmp_path / start, told, after=trained, fusion_start=start))
        assert sorted(path.stem for path in (tmp_path / start).iterdir()) == [phase, "tower_a", "tower_b"]
        assert not any("afresh" in note or "from the towers" in note for _, note in told)


def test_what_was_over_is_taken_up_and_the_other_one_trained(trained: dict[str, Path], tmp_path: Path) -> None:
    first = run(toy(tmp_path, after=trained))
    for left, told_of in (("fusion", "afresh: "), ("fusion_afresh", "from the towers: ")):
        for path in tmp_path.glob("fusion*"):
            if path.stem != left:
                path.unlink()
        told: list[tuple[str, str]] = []
        again = run(toy(tmp_path, told))
        assert {phase for phase, _ in told} == {"fusion"}
        assert all(note.startswith(told_of) for _, note in told)
        assert same(again.form, first.form)
        assert (again.history, again.fusion_start) == (first.history, first.fusion_start)


def test_one_that_begins_afresh_has_nothing_of_the_towers_but_their_outputs_bias(tmp_path: Path) -> None:
    schedule = toy(tmp_path)
    with torch.random.fork_rng():
        pairs = [TowerPair(schedule.fresh(number), schedule.fresh(number + 1)) for number in (0, 2)]
        pairs[1].a.body.output.bias.data.fill_(3.0)
        merged = dict(schedule.beginning(pairs[0], "towers").named_parameters())
        one, other = (schedule.beginning(pair, "afresh") for pair in pairs)
    for (name, value), others in zip(one.named_parameters(), other.parameters(), strict=True):
        is_bias = name.endswith("output.bias")
        assert torch.equal(value, others) != is_bias
        if not is_bias and "norms" not in name and value.any():  # cross links and squares begin as none
            assert not torch.equal(value, merged[name]), name
    a, b = one.parallel
    assert not torch.equal(a.linear_layers[0].weight, b.linear_layers[0].weight)
    assert b.output.bias.item() == pairs[0].a.body.output.bias.item()


@pytest.mark.parametrize("chosen", STARTS)
def test_a_run_keeps_what_was_chosen_and_its_report_says_so(chosen: Start, tiny_home: Path, tmp_path: Path) -> None:
    run = open_run(tiny_home / "run")
    assert load_config(tiny_home / "exp.toml").dtf.fusion_start is None
    kept = run.config.dtf.fusion_start
    assert kept in STARTS
    shutil.copytree(run.path, tmp_path / "run")
    text = (run.path / "config.toml").read_text()
    (tmp_path / "run" / "config.toml").write_text(
        text.replace(f'fusion_start = "{kept}"', f'fusion_start = "{chosen}"')
    )
    page = render_report(Run(tmp_path / "run", run.record))
    says = {
        "towers": "began from both towers, merged.",
        "afresh": "began from random weights, the towers teaching alone.",
    }
    assert [says[start] in page for start in STARTS] == [start == chosen for start in STARTS]


@pytest.mark.parametrize("given", [None, *STARTS])
def test_a_retraining_tries_both_whatever_the_run_chose_unless_one_is_given(
    given: Start | None, tiny_home: Path, tmp_path: Path
) -> None:
    config, data = load_config(tiny_home / "exp.toml"), PreparedData.open(tiny_home / "data")
    assert open_run(tiny_home / "run").config.dtf.fusion_start is not None
    config = tiny.brief(config)
    config = config.model_copy(update={"dtf": config.dtf.model_copy(update={"fusion_start": given})})
    result = train_reaction(data, config, tmp_path, resume=False, init_from=tiny_home / "run", progress=lambda *_: None)
    known = {"fusion": "towers", "fusion_afresh": "afresh"}
    trained = {known[path.stem] for path in tmp_path.glob("fusion*")}
    assert trained == (set(STARTS) if given is None else {given})
    assert result.fusion_start in trained


@pytest.mark.parametrize("failing", [*STARTS, None])
def test_one_that_fails_is_left_out_and_only_both_end_the_training(
    failing: Start | None, trained: dict[str, Path], tmp_path: Path
) -> None:
    class Failing(Schedule):
        def fusion(self, pair: TowerPair, *, start: Start = "towers", **how: Any) -> FusionForm:
            form = super().fusion(pair, start=start, **how)
            if failing in {start, None}:
                raise NonFiniteLossError("fusion, step 7: expected a finite loss, got nan")
            return form

    if failing is None:
        with pytest.raises(NonFiniteLossError):
            run(toy(tmp_path / "failing", kind=Failing, after=trained))
        return
    (other,) = set(STARTS) - {failing}
    found = run(toy(tmp_path / "failing", kind=Failing, after=trained))
    alone = run(toy(tmp_path / "alone", after=trained, fusion_start=other))
    assert found.fusion_start == other
    assert same(found.form, alone.form)
    assert found.history == alone.history
    (note,) = found.notes
    assert "one failed and was left out" in note
