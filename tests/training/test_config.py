"""Experiments: strict TOML in, a resolved config out, and messages that say file, key, expected and got."""

from collections.abc import Callable
from pathlib import Path

import pytest

from training.config import ExperimentConfig, load_config, save_config, with_absolute_paths, with_overrides
from training.strict_toml import ConfigError, ConfigFileError, ConfigSyntaxError, ConfigValueError

EXPERIMENTS = Path(__file__).resolve().parents[2] / "training" / "experiments"

MINIMAL = """
format = 1
name = "mine"

[data]
dataset = "table"
path = "log.csv"

[data.table]
label = "click"

[[data.fields]]
name = "user"
kind = "categorical"
side = "context"
"""


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "exp.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(ConfigValueError) as caught:
        load_config(path)
    assert isinstance(caught.value, ConfigError)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_is_valid_and_named_after_its_file_or_your_clicks(path: Path) -> None:
    config = load_config(path)
    assert config.name == (path.stem if path.stem != "table" else "my_clicks")


def test_sections_that_are_left_out_take_their_defaults(write: Write) -> None:
    config = load_config(write(MINIMAL))
    assert config.seed == 1
    assert config.train.batch_size is None
    assert config.dtf.widths


def test_a_config_cannot_be_changed_after_it_was_read(write: Write) -> None:
    config = load_config(write(MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[data]", "[train]\nbatch_szie = 3\n[data]"), "train.batch_szie: expected one of the keys averaging"),
        (("[data]", "[train]\nbatch_szie = 3\n[data]"), "got an unknown key (did you mean batch_size?)"),
        (
            ("[data]", "[trian]\n[data]"),
            "trian: expected one of the keys afe, calibration, data, dtf, format, name, seed, train",
        ),
        (('kind = "categorical"', 'kinds = "x"'), "data.fields[0].kind: expected this key, got none"),
        (('"context"', '"user"'), "data.fields[0].side: expected 'context' or 'candidate', got \"user\""),
        (("[data]", '[train]\nrate = "fast"\n[data]'), 'train.rate: expected a valid number, got "fast"'),
        (("[data]", "[train]\nepochs = 0\n[data]"), "train.epochs: expected greater than or equal to 1, got 0"),
        (("[data]", "[train]\nepochs = true\n[data]"), "train.epochs: expected a valid integer, got true"),
        (("[data]", '[train]\nepochs = "3"\n[data]'), 'train.epochs: expected a valid integer, got "3"'),
        (('path = "log.csv"', "path = 3"), "data.path: expected a valid string or a valid array, got 3"),
        (("format = 1", "format = 2"), "format: expected 1, got 2"),
        (('"mine"', '"../mine"'), "name: expected pattern"),
        (("[data]", "[dtf]\nwidths = []\n[data]"), "dtf.widths: "),
        (
            ('path = "log.csv"', 'split = { kind = "tim" }'),
            "data.split.kind: expected one of 'random', 'time', 'given'",
        ),
        (
            ('path = "log.csv"', 'path = "l"\nsplit = { kind = "random", column = "t" }'),
            "data.split.column: expected one of the keys by, kind, test, valid, got an unknown key",
        ),
        (("[[data.fields]]", "[[data.fields]]\nbuckets = 9"), "data.fields[0]: field 'user': buckets is for numeric"),
        (("[[data.fields]]", '[[data.fields]]\n"a b" = 9'), 'data.fields[0]."a b": expected one of the keys'),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_path_what_was_expected_and_what_was_got(
    write: Write, change: tuple[str, str], message: str
) -> None:
    path = write(MINIMAL.replace(*change))
    refused = refusal(path)
    assert message in refused
    assert all(line.startswith(f"{path}: ") for line in refused.splitlines())


def test_all_wrong_keys_are_listed_at_once(write: Write) -> None:
    refused = refusal(write(MINIMAL.replace("[data]", "[train]\nrate = 2.0\nepochs = 0\nx = 1\n[data]")))
    assert len(refused.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("format = 1\nname == 2", "line 2, column 7"),
        ("format = 1\n[data\n", "line 2, column 6"),
        ('name = "open', "end of file"),
    ],
)
def test_a_syntax_error_is_refused_with_its_line(write: Write, text: str, place: str) -> None:
    path = write(text)
    with pytest.raises(ConfigSyntaxError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {place}: expected TOML, got a syntax error: ")


def test_a_file_that_is_missing_a_directory_or_no_text_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"no\.toml: expected a TOML file, got no such file or directory"):
        load_config(tmp_path / "no.toml")
    with pytest.raises(ConfigFileError, match="expected a TOML file, got is a directory"):
        load_config(tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(ConfigFileError, match="expected UTF-8 text, got byte 0xe9"):
        load_config(path)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_written_config_reads_back_equal_with_its_defaults_spelled_out(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    save_config(config, tmp_path / "config.toml")
    assert load_config(tmp_path / "config.toml") == config
    assert "table_rate = " in (tmp_path / "config.toml").read_text(encoding="utf-8")


def test_a_written_config_keeps_given_split_files_and_typed_fields(write: Write, tmp_path: Path) -> None:
    text = MINIMAL.replace(
        'path = "log.csv"', 'path = ["a", "b"]\nsplit = { kind = "given", valid = "v", test = ["t"] }'
    )
    text += '\n[[data.fields]]\nname = "n"\nkind = "numeric"\nside = "candidate"\nedges = [1.0, 2.5]\n'
    config = load_config(write(text))
    save_config(config, tmp_path / "config.toml")
    assert load_config(tmp_path / "config.toml") == config


def test_relative_data_paths_are_pinned_to_the_file_unless_the_data_directory_has_them(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)
    config = load_config(write(MINIMAL))
    assert with_absolute_paths(config, tmp_path).data.path == str(tmp_path.resolve() / "log.csv")

    elsewhere = tmp_path / "shelf"
    elsewhere.mkdir()
    monkeypatch.setenv("REACTION_DATA_DIR", str(elsewhere))
    assert with_absolute_paths(config, tmp_path).data.path == str(tmp_path.resolve() / "log.csv")
    (elsewhere / "log.csv").touch()
    assert with_absolute_paths(config, tmp_path).data.path == "log.csv"


def test_a_given_split_by_files_is_pinned_and_one_by_column_is_not(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REACTION_DATA_DIR", raising=False)
    files = MINIMAL.replace(
        'path = "log.csv"', 'path = "t"\nsplit = { kind = "given", valid = "v", test = ["x", "/y"] }'
    )
    split = with_absolute_paths(load_config(write(files)), tmp_path).data.split
    assert (split.valid, split.test) == (str(tmp_path.resolve() / "v"), (str(tmp_path.resolve() / "x"), "/y"))
    column = MINIMAL.replace('path = "log.csv"', 'path = "t"\nsplit = { kind = "given", column = "c", valid = "v" }')
    assert with_absolute_paths(load_config(write(column)), tmp_path).data.split.valid == "v"


def test_the_command_line_overrides_seed_and_device(write: Write) -> None:
    config = load_config(write(MINIMAL))
    changed = with_overrides(config, seed=7, device="cpu")
    assert (changed.seed, changed.train.device) == (7, "cpu")
    assert with_overrides(config) == config
    assert isinstance(changed, ExperimentConfig)
