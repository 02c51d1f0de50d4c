"""What a run was made with: versions of the libraries that shape its numbers, and the source revision."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "reaction-ctr",
    "numpy",
    "polars",
    "pydantic",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torch",
    "xxhash",
)

PACKAGE = Path(__file__).resolve().parent


def library_versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries a run depends on; None for one that is not installed as a package."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def git_revision(package: Path = PACKAGE) -> str | None:
    """The commit this package's source is at, with "-dirty" where tracked files differ from it.

    Args:
        package: a package folder.

    Returns:
        None where the package is installed apart from its repository (a repository that merely holds the virtual
        environment is not its source), where it is not tracked, or where git is not installed.
    """
    try:
        tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
        if not tracked:
            return None
        commit = _git(package, "rev-parse", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", str(package.parent))
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + "-dirty" if changed else commit


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=30)
    return done.stdout.strip()
