"""The models of the benchmark, made once."""

from pathlib import Path

import pytest

from benchmarks.serving.job import Job
from benchmarks.serving.model import write_bundles, write_plain_model


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle of the service and the model of everyone else."""
    folder = tmp_path_factory.mktemp("bench")
    write_plain_model(folder / "model.onnx", write_bundles(folder))
    return folder


@pytest.fixture(scope="session")
def job(built: Path) -> Job:
    return Job(built / "model.onnx")
