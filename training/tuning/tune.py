"""A search from experiment to experiment: what `python -m training tune` does, and the files that it leaves.

TUNED.toml       the experiment, the winner's overrides in it: what `train` takes
TUNED.json       every trial
TUNED.tuning/    the search itself; while it is there, it can be gone on with
"""

from __future__ import annotations

import math
import time
import tomllib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import tomli_w

from service.features.files import replaced_file
from training.config import load_config, refuse_unknown_fields, with_absolute_paths
from training.console import text_table
from training.files import make_parent, write_json
from training.loader import PreparedData
from training.pages.results import COLUMNS
from training.same_data import refuse_other_data
from training.tuning.search import OutOfTimeError, Search, TuningError, load_optuna

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from training.phases.phase import Progress
    from training.tuning.tried import Found

FORMAT, VERSION = "reaction-tuning", 1


def tune(
    experiment: Path,
    data_path: Path,
    out: Path,
    *,
    trials: int,
    minutes: float | None = None,
    parameters: int | None = None,
    progress: Progress,
) -> Found:
    """Search, and write what was found, also when the search is stopped in the middle.

    Args:
        experiment: Where the search starts from.
        data_path: What `prepare` wrote for it. Its test split is not opened.
        out: The experiment to write.
        trials: Of the search in all, those of an earlier sitting counted.
        minutes: Time after which it stops where it is; None for no end.
        parameters: Most parameters of the model; twice those of the experiment as it is if None.
        progress: Told how far it is.

    Returns:
        What was found.

    Raises:
        TuningError: The output exists, or the search beside it is another; or nothing was found yet.
        KeyboardInterrupt: As it came; what was found so far is written.
    """
    load_optuna()
    if out.suffix != ".toml":
        raise TuningError(f"{out}: expected a name that ends in .toml")
    folder = out.with_suffix(".tuning")
    if out.exists() and not folder.is_dir():
        raise TuningError(f"{out}: expected a path that does not exist yet, got an existing one")
    config = with_absolute_paths(load_config(experiment), experiment.parent)
    data = PreparedData.open(data_path)
    refuse_other_data(config, data)
    refuse_unknown_fields(config.afe, [field.name for field in data.encoder.fields])
    make_parent(out)
    deadline = math.inf if minutes is None else time.monotonic() + 60.0 * minutes
    search = Search(data, config, folder, progress, parameters, deadline)
    try:
        search.run(trials)
    except OutOfTimeError:
        pass
    except BaseException:
        # Ctrl-C, or an error of one training: what was found before is good.
        if any(trial.state == "complete" for trial in search.tried()):
            write(search.found(), experiment, out, data.digest)
        raise
    found = search.found()
    write(found, experiment, out, data.digest)
    return found


def write(found: Found, experiment: Path, out: Path, data_digest: str) -> None:
    """Write the experiment and its report, each whole or not at all."""
    document = tomllib.loads(experiment.read_text(encoding="utf-8"))
    if out.resolve().parent != experiment.resolve().parent:
        _move_paths(document, experiment)
    for key, value in found.best.overrides.items():
        section, _, name = key.partition(".")
        document.setdefault(section, {})[name] = value
    start = next(trial for trial in found.trials if trial.number == 0)
    report = {
        "format": FORMAT,
        "version": VERSION,
        "experiment": experiment.name,
        "data_digest": data_digest,
        **asdict(found),
    }
    with replaced_file(out.with_suffix(".json")) as staged:
        write_json(staged, report)
    lines = [
        f"Found by python -m training tune from {experiment.name}: trial {found.chosen} of {len(found.trials)}"
        + ("." if found.ended else ", so far."),
        f"Validation {COLUMNS[found.monitor]}, mean over seeds {_seeds(found.best.scores)}: {found.best.mean():.5f}"
        + (f"; as it was: {start.mean():.5f} over {_seeds(start.scores)}." if start.scores else "."),
    ]
    text = "".join(f"# {line}\n" for line in lines) + tomli_w.dumps(document)
    with replaced_file(out) as staged:
        staged.write_text(text, encoding="utf-8")
    load_config(out)  # what was written can be trained


def trials_table(found: Found) -> Table:
    """The trials, best first."""
    sign = -1.0 if found.monitor == "auc" else 1.0
    trained = [trial for trial in found.trials if trial.state != "too large"]
    order = sorted(trained, key=lambda t: (not t.scores, sign * t.mean() if t.scores else 0.0, t.number))
    rows = [
        [
            f"{trial.number}{' *' if trial.number == found.chosen else ''}",
            f"{trial.mean():.5f}" if trial.scores else trial.state,
            len(trial.scores) or "",
            f"{trial.parameters:,}",
            f"{trial.seconds:.0f}",
            ", ".join(f"{key.partition('.')[2]} = {value}" for key, value in trial.overrides.items()) or "as it was",
        ]
        for trial in order
    ]
    name = COLUMNS[found.monitor]
    return text_table(
        f"Trials (validation; * is chosen; at most {found.limit:,} parameters)",
        ["trial", name, "seeds", "parameters", "seconds", "changes"],
        rows,
        left=(5,),
    )


def _move_paths(document: dict[str, Any], experiment: Path) -> None:
    """Make paths of raw data absolute, for they are looked for beside the experiment's file."""
    config = with_absolute_paths(load_config(experiment), experiment.parent)
    values = config.data.model_dump(mode="json")
    if "path" in document["data"]:
        document["data"]["path"] = values["path"]
    split = document["data"].get("split", {})
    if split.get("kind") == "given" and "column" not in split:
        split |= {key: values["split"][key] for key in ("valid", "test") if key in split}


def _seeds(scores: dict[int, float]) -> str:
    return ", ".join(map(str, sorted(scores)))
