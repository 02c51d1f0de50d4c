"""Damaged bundles are refused or served with sane scores, whatever was done to them; the short profile."""

import json
from pathlib import Path
from random import Random

import pytest

from benchmarks.reliability.figures import add_figures
from benchmarks.reliability.fuzz.bundle import write_small_bundle
from benchmarks.reliability.fuzz.bundles import Result, _fit, _names, as_written, digests_made_to_fit, signed_copy
from benchmarks.reliability.fuzz.opener import outcome
from benchmarks.reliability.fuzz.structured import STRUCTURED


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "small"
    write_small_bundle(path)
    return path


def test_no_damage_under_digests_as_written_is_taken(bundle: Path, tmp_path: Path) -> None:
    signed, keys = signed_copy(bundle, tmp_path)
    result = as_written(signed, keys, tmp_path / "work", range(160))
    assert result.outcomes == {"refused": result.inputs}, result.findings
    assert set(result.files) == {path.relative_to(signed).as_posix() for path in signed.rglob("*") if path.is_file()}


def test_damage_under_digests_made_to_fit_is_refused_with_a_reason_or_scores_sanely(
    bundle: Path, tmp_path: Path
) -> None:
    result = digests_made_to_fit(bundle, tmp_path / "work", range(80))
    assert result.findings == []
    assert set(result.outcomes) <= {"refused", "served", "unanswered"}
    assert {"BundleFormatError", "SelfTestError"} <= set(result.reasons)
    assert result.inputs > 60


def test_only_the_damage_is_what_is_refused(bundle: Path) -> None:
    contents = {name: (bundle / name).read_bytes() for name in _names(bundle)}
    for name, content in _fit(contents, {}).items():
        (bundle / name).write_bytes(content)
    assert outcome(bundle) == {"outcome": "served", "why": "", "message": ""}


def test_a_damage_is_the_same_again(bundle: Path, tmp_path: Path) -> None:
    def run(name: str) -> Result:
        return as_written(signed, keys, tmp_path / name, range(40))

    signed, keys = signed_copy(bundle, tmp_path)
    assert run("one") == run("two")


@pytest.mark.parametrize("name", ["manifest.json", "golden.jsonl", "vocabularies/000.safetensors"])
def test_structured_damage_leaves_a_file_that_its_parser_reads(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    damage = STRUCTURED[Path(name).suffix]
    changed = [damage(Random(seed), content) for seed in range(50)]
    assert len(set(changed)) > 30
    for found in changed:
        length = int.from_bytes(found[:8], "little")
        texts = [found[8 : 8 + length]] if name.endswith(".safetensors") else found.splitlines()
        for text in texts if name != "manifest.json" else [found]:
            json.loads(text)


def test_figures_of_one_command_leave_those_of_another(tmp_path: Path) -> None:
    add_figures(tmp_path / "figures.json", {"one": 1, "two": 2})
    add_figures(tmp_path / "figures.json", {"two": 3})
    assert json.loads((tmp_path / "figures.json").read_text()) == {"one": 1, "two": 3}
