"""The models of the benchmark, made once."""

from pathlib import Path

import pytest

from benchmarks.serving.job import Job
from benchmarks.serving.model import features, random_tower, write_plain_model, write_service_bundle


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle of the service and the model of everyone else."""
    folder = tmp_path_factory.mktemp("bench")
    encoder = features()
    tower = random_tower(encoder)
    write_service_bundle(folder / "bundle", encoder, tower)
    write_plain_model(folder / "model.onnx", tower)
    few = features(("C19",))
    write_service_bundle(folder / "few", few, random_tower(few), "few")
    return folder


@pytest.fixture(scope="session")
def job(built: Path) -> Job:
    return Job(built / "model.onnx")
