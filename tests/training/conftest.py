"""One tiny run, made once by the real commands."""

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with exp.toml, log.csv, data/ (prepared) and run/ (trained); to be read only."""
    home = tmp_path_factory.mktemp("tiny")
    tiny.write_experiment(home)
    for arguments in (
        ["prepare", "exp.toml", "--out", "data"],
        ["train", "exp.toml", "--data", "data", "--out", "run"],
    ):
        done = tiny.training_here(*arguments, cwd=home)
        assert done.returncode == 0, done.stderr
    return home
