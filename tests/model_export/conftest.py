"""A run and its bundle, made once for all tests of the export."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from run_directory import write_run

from model_export.export import export_run

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.export import Exported


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_run(run, tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(run, tmp_path / "run")
