"""The report of both analyses, of what was measured or recorded, and the control of noise as it is measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

import benchmarks
from benchmarks.redundancy.__main__ import main
from benchmarks.redundancy.noise import noise_control
from benchmarks.redundancy.picture import draw
from benchmarks.redundancy.record import laid_over, measured_of, recorded, summary
from benchmarks.redundancy.report import render
from training.files import FileError, write_json
from training.structural.structure import Point, Structure

if TYPE_CHECKING:
    from typer.testing import Result

COMMITTED = Path(benchmarks.__file__).parent
CONTROL = {
    "seed": 7,
    "rows": 500,
    "mean_bits": 0.001,
    "standard_error_bits": 0.002,
    "plug_in_bits": 0.1,
    "kept": 0.05,
    "inside": 0.9,
    "least_interaction_p": 1.0,
}


def report_only(to: Path, work: Path, *options: str) -> Result:
    """The command, which measures nothing."""
    cli = typer.Typer()
    cli.command()(main)
    return CliRunner().invoke(cli, ["--report-only", "--out", str(to), "--work", str(work), *options])


def measured() -> dict[str, Any]:
    points = (Point(1.0, 100, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), Point(0.4, 40, -0.0009, -0.002, 0.0, 0.0, 0.0, 0.0))
    layers = Structure((4, 8), 100, 50, 60, 0.75, 0.5, {"units": points}).as_json()
    fields = {
        "rows": 1000,
        "fields": [{"name": "a|d", "millibits": 12.5, "low_millibits": 10.0, "high_millibits": 15.25}],
        "interactions": [
            {
                "first": "a|d",
                "second": "b",
                "both_bits": 0.02,
                "beyond_better_bits": 0.001,
                "interaction_bits": -0.003,
                "low_bits": -0.004,
                "high_bits": -0.002,
                "p_value": 1e-9,
            }
        ],
        "clusters": [["a|d", "b"]],
        "carried": {
            "names": ["a|d", "b", "c"],
            "information": [0.9, 0.992, 1.0],
            "parameters": [0.2, 0.6, 1.0],
            "needed": {"0.9": 1, "0.99": 2},
        },
        "kinds": [
            {"kind": "carries", "names": ["a|d", "c", "b"], "fields": 0.75, "parameters": 0.7},
            {"kind": "weak", "names": ["b"], "fields": 0.5, "parameters": 0.8},
        ],
        "selection": {},
        "measures": {},
    }
    return {"tasks": {"clicks": {"fields": fields, "layers": {"models": {"fused": layers}}}}, "noise": []}


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    content = measured()
    page = render(content)
    for words in (
        "a|d 12.5 (10.0 to 15.2)",
        "a\\|d × b | 20.0 | 1.0 | -3.0 | -4.0 to -2.0 | < 1e-6",
        "60% of 100 dense parameters can go",
        "0% with confidence",
        "| add less than 1% together | 1 | 50% | 80.0% | b |",
    ):
        assert words in page
    assert page.count("Measured before dates were kept") == 2
    draw(content["tasks"], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_fields_that_only_a_pair_brings_are_told_from_those_that_carry_in_order() -> None:
    page = render(measured())
    assert "the first 1 carry 90%, 2 carry 99% of the information of all 3 fields" in page
    assert "all beyond the first 2 hold 40.0% of the embedding parameters" in page
    assert "In the table beside them, of a kept pair: c." in page
    assert "| are among the first that carry 99%, or in a kept pair | 3 | 75% | 70.0% | a\\|d, c, b |" in page


def test_the_page_says_when_each_part_was_measured_and_what_was_not() -> None:
    content = measured()
    task = content["tasks"]["clicks"]
    task["layers"] |= {"measured": "2026-11-29", "method": 6}
    task["fields"] |= {"measured": "2026-11-30", "method": 7}
    content["tasks"]["shows"] = {**task, "layers": None}
    page = render(content)
    fields, layers = page.split("## Dense layers")
    assert fields.count("Measured on 2026-11-30, of method 7 of REACTION.") == 2
    assert layers.count("Measured on 2026-11-29, of method 6 of REACTION.") == 1
    assert "- Tuned DNN: not measured." in layers
    assert "- Fused: not measured." not in layers
    assert "### shows: layers\n\nNot measured.\n" in layers


def test_what_is_recorded_makes_the_page_that_was_made_of_what_was_measured(tmp_path: Path) -> None:
    content = measured()
    content["tasks"]["clicks"]["layers"] |= {"measured": "2026-11-29", "method": 6}
    content["tasks"]["shows"] = {"fields": content["tasks"]["clicks"]["fields"], "layers": None}
    content["noise"] = [CONTROL]
    write_json(tmp_path / "r.json", summary(content))
    kept = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert "measures" not in kept["tasks"]["clicks"]["fields"]
    assert Structure.from_json(kept["tasks"]["clicks"]["layers"]["fused"]).parameters == 100
    read = recorded(tmp_path / "r.json")
    assert render(read) == render(content)
    assert summary(read) == kept
    (tmp_path / "r.json").write_text('{"format": "other", "version": 1}', encoding="utf-8")
    with pytest.raises(FileError, match="expected reaction-redundancy 1, got other 1"):
        recorded(tmp_path / "r.json")


def test_the_newer_of_two_measurements_counts_part_by_part() -> None:
    before, newer = measured(), measured()
    before["noise"] = [CONTROL | {"seed": 1}, CONTROL | {"seed": 0}]
    newer["noise"] = [CONTROL | {"seed": 1, "kept": 0.5}]
    newer["tasks"]["clicks"]["fields"] = newer["tasks"]["clicks"]["fields"] | {"rows": 7}
    newer["tasks"]["clicks"]["layers"] = None
    newer["tasks"]["shows"] = {"fields": None, "layers": {"models": {}}}
    both = laid_over(before, newer)
    assert list(both["tasks"]) == ["clicks"], "layers alone are no section"
    assert both["tasks"]["clicks"]["fields"]["rows"] == 7
    assert both["tasks"]["clicks"]["layers"] == before["tasks"]["clicks"]["layers"]
    assert [(control["seed"], control["kept"]) for control in both["noise"]] == [(0, 0.05), (1, 0.5)]
    assert before["tasks"]["clicks"]["fields"]["rows"] == 1000


def test_report_only_keeps_what_only_the_record_knows(tmp_path: Path) -> None:
    work = tmp_path / "work"
    write_json(tmp_path / "redundancy.json", summary(measured() | {"noise": [CONTROL]}))
    (work / "criteo").mkdir(parents=True)
    write_json(work / "criteo" / "fields.json", measured()["tasks"]["clicks"]["fields"] | {"rows": 4321})
    result = report_only(tmp_path, work, "--tasks", "criteo")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "REDUNDANCY.md").read_text(encoding="utf-8")
    assert "4,321 training rows" in page
    assert "60% of 100 dense parameters can go" in page
    assert "| 7 | 100.0 | +1.00 |" in page
    assert (tmp_path / "redundancy.png").exists()
    written = (tmp_path / "redundancy.json").read_text(encoding="utf-8")
    assert list(json.loads(written)["tasks"]) == ["clicks", "criteo"]
    shutil.rmtree(work)
    assert report_only(tmp_path, work).exit_code == 0
    assert (tmp_path / "redundancy.json").read_text(encoding="utf-8") == written
    assert (tmp_path / "REDUNDANCY.md").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("record", [None, {"tasks": {}, "noise": []}, "{"])
def test_report_only_of_nothing_is_refused_and_writes_nothing(tmp_path: Path, record: object) -> None:
    path = tmp_path / "redundancy.json"
    if isinstance(record, str):
        path.write_text(record, encoding="utf-8")
    elif record is not None:
        write_json(path, summary(record))  # type: ignore[arg-type]
    before = path.read_bytes() if path.exists() else None
    result = report_only(tmp_path, tmp_path / "work")
    assert result.exit_code == 2
    said = " ".join(result.output.replace("│", " ").split())  # a box, its lines broken anywhere
    assert ("expected JSON" if isinstance(record, str) else "got nothing") in said
    assert (path.read_bytes() if path.exists() else None) == before
    assert not (tmp_path / "REDUNDANCY.md").exists()


def test_the_committed_page_is_that_of_the_committed_record() -> None:
    page = render(recorded(COMMITTED / "redundancy.json"))
    assert (COMMITTED / "REDUNDANCY.md").read_text(encoding="utf-8") == page
    record = json.loads((COMMITTED / "redundancy.json").read_text(encoding="utf-8"))
    assert summary(measured_of(record)) == record


@pytest.mark.slow
def test_200_noise_fields_through_the_whole_of_afe_are_estimated_at_zero_and_dropped() -> None:
    found = noise_control(0, fields=200, rows=600)
    assert abs(found["mean_bits"] / found["standard_error_bits"]) < 2.0
    assert 1 / 200 <= found["kept"] <= 0.05  # a model keeps one field at least
    assert found["inside"] > 0.9
    assert found["plug_in_bits"] > 0.1  # what no correction would say
    assert found["least_interaction_p"] > 0.001
    assert "in standard errors" in render({"tasks": {}, "noise": [found]})
