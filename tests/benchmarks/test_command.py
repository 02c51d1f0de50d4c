"""What the command writes where, under which name, and what it refuses."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.serving.__main__ import HERE, cli, folder, recorded, verdicts
from benchmarks.serving.machine import check_machine
from benchmarks.serving.run import QUICK, Plan, check_names


def test_a_part_never_goes_where_the_whole_is_published_unless_asked(tmp_path: Path) -> None:
    assert folder(None, part=False) == HERE
    scratch = folder(None, part=True)
    scratch.rmdir()
    assert not scratch.is_relative_to(HERE)
    assert folder(tmp_path, part=True) == folder(tmp_path, part=False) == tmp_path


def test_the_command_is_told_with_every_option_and_without_folders(tmp_path: Path) -> None:
    options = {"quick": True, "peers": tmp_path, "peers-venvs": tmp_path, "out": None, "only": "service,tutorial"}
    assert recorded(options) == (
        "python -m benchmarks.serving --quick --peers DIR --peers-venvs DIR --only service,tutorial"
    )
    assert recorded({"quick": False, "only": None}) == "python -m benchmarks.serving"


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        (Plan(QUICK), None),
        (Plan(QUICK, only=frozenset({"service", "tutorial"}), workloads=("one_row",)), None),
        (Plan(QUICK, only=frozenset({"service", "sevrice"})), "--only: expected some of service, .*, got sevrice"),
        (Plan(QUICK, workloads=("one-row",)), "--workloads: expected some of one_row, .*, got one-row"),
        (Plan(QUICK, only=frozenset({"tutorial"})), "--only: expected service among"),
    ],
)
def test_names_that_nobody_has_are_refused_with_those_there_are(plan: Plan, problem: str | None) -> None:
    found = check_names(plan)
    if problem is None:
        assert found is None
    else:
        with pytest.raises(ValueError, match=problem):
            raise ValueError(found)


@pytest.mark.skipif(check_machine() is not None, reason="refused for another reason")
def test_the_command_ends_before_it_measures_on_a_name_that_nobody_has() -> None:
    done = CliRunner().invoke(cli, ["--quick", "--workloads", "one-row"])
    assert done.exit_code == 2
    assert "got one-row" in done.output


def test_what_to_know_of_a_figure_is_printed_beside_the_verdict() -> None:
    target = {"met": False, "expected": "at least 4", "notes": ["disturbed", "an upper bound"]}
    aside = {"b": {"text": "", "value": 2.0, "notes": ["disturbed"]}}
    lost = target | {"met": None, "notes": ["without peer at one_row"]}
    lines = verdicts({"ratios": {"a": 1.0, "b": 2.0}, "targets": {"a": target, "c": lost}, "aside": aside})
    assert lines[0].endswith("NOT MET: at least 4; disturbed; an upper bound")
    assert lines[1].endswith("2.000   disturbed")
    assert lines[2].endswith("not measured; without peer at one_row")
