"""The house rules that no linter knows: tables are complete, files are short, nothing strays in."""

import ast
import importlib
import importlib.metadata
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model_export.passes import PASSES, TABLE_PASSES
from service.routes import ROUTERS
from training.config import load_config
from training.datasets import DATASETS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("service", "training", "model_export")
LONGEST_FILE = 350
# What a serving process must never load, even by way of something else.
TRAINING_LIBRARIES = {"torch", "onnx", "polars", "sklearn", "scipy", "matplotlib", "rich", "training", "model_export"}
# Packages that are the public face of another, which brings them.
FACES = {"starlette": "fastapi", "click": "typer", "markupsafe": "jinja2", "pydantic-core": "pydantic"}


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        [shutil.which("git") or "git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def modules_of(folder: str, *shared: str) -> set[str]:
    """Modules of a folder of table entries, apart from helpers (`_x.py`) and what the entries share."""
    return {path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("_")} - set(shared)


def test_every_data_set_is_a_file_of_its_name_and_a_line_in_the_table() -> None:
    homes = {name: builder.__module__ for name, builder in DATASETS.items()}  # type: ignore[attr-defined]
    assert homes == {name: f"training.datasets.{name}" for name in modules_of("training/datasets", "base", "config")}


def test_every_endpoint_is_a_file_of_its_name_and_a_line_in_the_table() -> None:
    homes = {name: router.__module__ for name, router in ROUTERS.items()}
    assert homes == {name: f"service.routes.{name}" for name in modules_of("service/routes")}


def test_every_graph_pass_is_a_file_of_its_name_and_a_line_in_the_table() -> None:
    homes = {name: transform.__module__ for name, transform in {**PASSES, **TABLE_PASSES}.items()}
    assert homes == {name: f"model_export.passes.{name}" for name in modules_of("model_export/passes")}


@pytest.mark.parametrize("path", sorted((ROOT / "training/experiments").iterdir()), ids=lambda path: path.name)
def test_every_experiment_is_one_that_can_be_read_and_is_named_after_its_file(path: Path) -> None:
    assert path.suffix == ".toml"
    config = load_config(path)
    # the template of a table is there to be copied: its name is the copier's
    assert config.name == (path.stem if config.data.dataset != "table" else "my_clicks")
    assert config.data.dataset in DATASETS


def test_imports_go_down_the_floors_only_and_lent_modules_know_no_web_framework() -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout


def test_importing_every_module_of_the_service_loads_no_training_library() -> None:
    names = [
        name
        for _, name, _ in pkgutil.walk_packages([str(ROOT / "service")], prefix="service.")
        if not name.endswith("__main__")
    ]
    assert "service.app" in names
    code = (
        "import importlib, sys\n"
        f"for name in {['service', *names, 'service.__main__']!r}: importlib.import_module(name)\n"
        f"print(*sorted({TRAINING_LIBRARIES!r} & set(sys.modules)))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip() == ""


@pytest.mark.parametrize(
    "path", [p for p in tracked_files() if p.suffix == ".py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_module_is_too_long_to_read_in_one_sitting(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{path.relative_to(ROOT)} has {lines} lines: split it along a natural seam"


def test_tracked_files_name_no_machine_and_no_package_host() -> None:
    # Built from pieces, so that this file does not hold what it looks for.
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch", "org"))]
    patterns = [re.escape(host) for host in hosts]
    patterns.append('(?:index-url|find-links|registry) *[=:] *"?(?:http|file|/)')
    if len(ROOT.parent.parts) > 1:
        patterns.append("(?<![A-Za-z0-9_.])" + re.escape(str(ROOT.parent)) + "(?:/|(?![A-Za-z0-9_-]))")
    forbidden = re.compile("|".join(patterns))
    strays = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        strays += [f"{path.relative_to(ROOT)}: {m.group()}" for m in forbidden.finditer(text)]
    assert strays == []


def test_nothing_of_ours_reads_or_writes_pickle() -> None:
    pattern = re.compile(r"import pickle|allow_pickle=True|torch\.load\(|joblib")
    strays = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.suffix == ".py"
        and path.relative_to(ROOT).parts[0] in PACKAGES
        and pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert strays == []


def test_every_package_of_the_environment_we_ask_for_is_pinned_to_one_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = re.fullmatch(r"([a-z0-9.-]+)==([0-9][0-9a-z.]*)", line)  # no local tag: +cpu is one machine's build
            assert pin, f"constraints.txt: not an exact, public release: {line!r}"
            pins[pin[1]] = pin[2]
    waiting = [Requirement(text) for group in project["optional-dependencies"].values() for text in group]
    waiting += [Requirement(text) for text in project["dependencies"]]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = {(name, extra) for extra in ("", *requirement.extras)} - seen
        if not wanted:
            continue
        seen |= wanted
        bound = name.startswith(("nvidia-", "cuda-", "triton"))  # beside torch's CUDA build: pinned by torch itself
        assert name in pins or bound, f"{name} has no pin in constraints.txt"
        assert bound or pins[name] in requirement.specifier, f"{name}=={pins[name]} does not satisfy {requirement}"
        for text in importlib.metadata.requires(name) or []:
            asked = Requirement(text)
            if asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for _, extra in wanted):
                waiting.append(asked)
    if sys.platform == "linux" and sys.version_info[:2] == (3, 11):  # elsewhere a marker may leave some out
        assert set(pins) <= {name for name, _ in seen}, "pins that nothing asks for"


def test_what_a_package_imports_is_among_the_dependencies_it_is_installed_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    serving = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    training = {canonicalize_name(Requirement(text).name) for text in project["optional-dependencies"]["training"]}
    owners = importlib.metadata.packages_distributions()
    bench, tune = (
        {canonicalize_name(Requirement(text).name) for text in project["optional-dependencies"][extra]}
        for extra in ("bench", "tune")
    )
    allowed = {"service": serving, "training": serving | training, "model_export": serving | training}
    # What loads a service from outside has an extra of its own, and so has the search.
    extras = {ROOT / "service/bench": bench, ROOT / "training/tuning": tune}
    strays: list[str] = []
    used: set[str] = set()
    for path in tracked_files():
        package = path.relative_to(ROOT).parts[0]
        if path.suffix != ".py" or package not in PACKAGES:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = {node.module}
            else:
                continue
            for module in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - set(PACKAGES):
                distributions = {canonicalize_name(name) for name in owners.get(module, [module])}
                distributions |= {FACES[name] for name in distributions if name in FACES}
                used |= distributions
                more = {name for tool, names in extras.items() if tool in path.parents for name in names}
                if not distributions & (allowed[package] | more):
                    strays.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not strays, "\n".join(strays)
    # uvicorn loads these two by name
    assert (serving | training | bench) - used <= {"httptools", "uvloop"}, "dependencies that nothing imports"


@pytest.mark.parametrize("module", ["service.scorer", "model_export.latency"])
def test_onnx_runtime_is_loaded_without_its_telemetry(module: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    code = f"import sys, {module}; assert 'onnxruntime' in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    # where it reports, it first writes down an identifier of the machine
    assert list(tmp_path.rglob("*")) == []
