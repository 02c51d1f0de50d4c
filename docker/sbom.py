"""`python docker/sbom.py`: what the serving image is made of, as a CycloneDX 1.6 document on standard output.

It lists what the service's dependencies in `pyproject.toml` reach in the environment that runs this, so it is right for
the image when it runs in the image's own. Nothing is asked of any other machine, and the same environment gives the
same document.
"""

from __future__ import annotations

import json
import sys
import tomllib
import uuid
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def asked(texts: list[str], extras: set[str]) -> dict[str, set[str]]:
    """Packages that requirements ask for here, with the extras they ask for."""
    found: dict[str, set[str]] = {}
    for text in texts:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    return found


def closure(texts: list[str]) -> dict[str, tuple[Distribution, list[str]]]:
    """Every package that requirements reach: its distribution, and the packages it asks for itself."""
    found: dict[str, tuple[Distribution, list[str]]] = {}
    known: dict[str, set[str]] = {}
    waiting = asked(texts, set())
    while waiting:
        name, extras = waiting.popitem()
        if name in known and extras <= known[name]:
            continue
        known[name] = extras = known.get(name, set()) | extras
        package = distribution(name)
        needed = asked(package.requires or [], extras)
        found[name] = package, sorted(needed)
        for other, wanted in needed.items():
            waiting.setdefault(other, set()).update(wanted)
    return found


def component(name: str, package: Distribution) -> dict[str, Any]:
    """One package."""
    facts = package.metadata
    licence, told = facts.get("License-Expression"), facts.get("License") or ""
    classifiers = facts.get_all("Classifier") or []
    named = [value.rpartition(" :: ")[2] for value in classifiers if value.startswith("License ::")]
    if not named and told and "\n" not in told:  # some put the whole text there
        named = [told]
    purl = f"pkg:pypi/{name}@{package.version}"
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": package.version,
        "purl": purl,
    }
    if licence:
        found["licenses"] = [{"expression": licence}]
    elif named:
        found["licenses"] = [{"license": {"name": value}} for value in named]
    return found


def document(root: Path = ROOT) -> dict[str, Any]:
    """The bill of materials.

    Args:
        root: Where `pyproject.toml` lies.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = closure(project["dependencies"])
    components = [component(name, package) for name, (package, _) in sorted(packages.items())]
    refs = {entry["name"]: entry["bom-ref"] for entry in components}
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    edges = {own: sorted(refs[name] for name in asked(project["dependencies"], set()))}
    edges |= {refs[name]: [refs[other] for other in needed] for name, (_, needed) in sorted(packages.items())}
    main = {"type": "application", "bom-ref": own, "name": project["name"], "version": project["version"], "purl": own}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join([own, *refs.values()]))}",
        "version": 1,
        "metadata": {"component": {**main, "licenses": [{"expression": project["license"]}]}},
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": others} for ref, others in edges.items()],
    }


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1)
    sys.stdout.write("\n")
