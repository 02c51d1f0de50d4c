"""The manifests keep to Kubernetes' own schema, to the restricted pod standard, and to what the service has."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from jsonschema import Draft7Validator
from serving import build_bundle, serving

from service.metrics import CATALOGUE
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "kubernetes"
SCHEMA = json.loads((ROOT / "tests" / "kubernetes" / "schema.json").read_text(encoding="utf-8"))
MANIFESTS = sorted((PLACE / "base").glob("*.yaml")) + sorted((PLACE / "overlays").rglob("*.yaml"))
RESOURCES = [path for path in MANIFESTS if path.name != "kustomization.yaml"]
SETTINGS = {f"REACTION_{name.upper()}": field.default for name, field in Settings.model_fields.items()}


def read(name: str) -> Any:
    return yaml.safe_load((PLACE / name).read_text(encoding="utf-8"))


def complaints(document: Any, definition: str) -> list[str]:
    validator = Draft7Validator({"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]})
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(document)]


def faults(resource: dict[str, Any]) -> list[str]:
    """What Kubernetes' API would say against a resource."""
    return complaints(resource, SCHEMA["kinds"][resource["kind"]])


def rendered(folder: str) -> list[dict[str, Any]]:
    """Resources of an overlay as kustomize puts them together."""
    tools = [
        (path, words)
        for path, words in ((shutil.which("kubectl"), ["kustomize"]), (shutil.which("kustomize"), ["build"]))
        if path
    ]
    if not tools:
        pytest.skip("NOT CHECKED: overlays as they are rendered: no kubectl and no kustomize on PATH")
    tool, words = tools[0]
    done = subprocess.run([tool, *words, str(PLACE / folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [resource for resource in resources if resource["kind"] == kind]
    return found


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector is met."""
    wanted = {name: [value] for name, value in selector.get("matchLabels", {}).items()}
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In"
        wanted[expression["key"]] = expression["values"]
    return all(labels.get(name) in values for name, values in wanted.items())


@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: path.name)
def test_a_manifest_keeps_to_the_schema_of_its_kind(path: Path) -> None:
    assert faults(yaml.safe_load(path.read_text(encoding="utf-8"))) == []


def test_the_schema_refuses_what_kubernetes_does_not_know() -> None:
    deployment = read("base/deployment.yaml")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    assert "Additional properties are not allowed ('readinesProbe' was unexpected)" in "".join(faults(deployment))
    autoscaler = read("base/autoscaler.yaml")
    autoscaler["spec"]["minReplicas"] = "three"
    assert len(faults(autoscaler)) == 1


@pytest.mark.parametrize("folder", ["base", "overlays/example", "kserve"])
def test_every_manifest_is_in_its_folder_s_kustomization(folder: str) -> None:
    listed = {name for name in read(f"{folder}/kustomization.yaml")["resources"] if name.endswith(".yaml")}
    assert listed == {path.name for path in (PLACE / folder).glob("*.yaml")} - {"kustomization.yaml"}


def test_the_example_as_it_is_rendered_keeps_to_the_schema_and_fits_together() -> None:
    resources = rendered("overlays/example")
    assert [fault for resource in resources for fault in faults(resource)] == []
    pod = one(resources, "Deployment")["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    selectors = [
        one(resources, "Deployment")["spec"]["selector"]["matchLabels"],
        one(resources, "Service")["spec"]["selector"],
        one(resources, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(resources, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod["spec"]["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector.items() <= labels
        assert len(selector) == 2
    (rule,) = one(resources, "NetworkPolicy")["spec"]["ingress"]
    prometheus = {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "server"}
    assert [selects(source.get("podSelector", {}), prometheus) for source in rule["from"]] == [True, True]
    (container,) = pod["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": one(resources, "ConfigMap")["metadata"]["name"]}}]
    assert container["image"] == "registry.example/reaction-serving:0.1.0"
    claim = one(resources, "PersistentVolumeClaim")["metadata"]["name"]
    assert claim in {volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["spec"]["volumes"]}
    assert one(resources, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "reaction"
    namespaces = {resource["metadata"].get("namespace") for resource in resources if resource["kind"] != "Namespace"}
    assert namespaces == {one(resources, "Namespace")["metadata"]["name"]}


def test_the_namespace_enforces_the_restricted_standard_and_the_pods_keep_to_it() -> None:
    labels = read("overlays/example/namespace.yaml")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = read("base/deployment.yaml")["spec"]["template"]["spec"]
    runtime = read("kserve/serving-runtime.yaml")["spec"]
    for spec in (pod, runtime):
        (container,) = spec["containers"]
        security = {**spec.get("securityContext", {}), **container["securityContext"]}
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not [volume for volume in spec.get("volumes", ()) if "hostPath" in volume]
    assert pod["automountServiceAccountToken"] is False


def test_what_is_asked_for_is_what_is_given_in_whole_cpus() -> None:
    for spec in (read("base/deployment.yaml")["spec"]["template"]["spec"], read("kserve/serving-runtime.yaml")["spec"]):
        resources = spec["containers"][0]["resources"]
        for name in ("cpu", "memory"):
            assert resources["requests"][name] == resources["limits"][name]
        assert int(resources["limits"]["cpu"]) >= 1


def test_the_container_of_kserve_s_runtime_is_one_that_kubernetes_takes() -> None:
    (container,) = read("kserve/serving-runtime.yaml")["spec"]["containers"]
    assert complaints(container, "io.k8s.api.core.v1.Container") == []
    service = read("kserve/inference-service.yaml")["spec"]["predictor"]["model"]
    runtime = read("kserve/serving-runtime.yaml")
    assert service["runtime"] == runtime["metadata"]["name"]
    assert service["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert service["modelFormat"]["name"] in {known["name"] for known in runtime["spec"]["supportedModelFormats"]}


def test_pods_are_killed_only_after_all_that_the_service_waits_for() -> None:
    pod = read("base/deployment.yaml")["spec"]["template"]["spec"]
    waits = SETTINGS["REACTION_DRAIN_SECONDS"] + SETTINGS["REACTION_SHUTDOWN_SECONDS"]
    assert pod["terminationGracePeriodSeconds"] >= waits + 10


def test_every_setting_of_the_manifests_is_one_of_the_service() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PLACE.rglob("*.yaml"))
    assert set(re.findall(r"(REACTION_[A-Z_]+)(?:=|$)", text, re.MULTILINE)) <= SETTINGS.keys()
    assert "REACTION_BUNDLE" in text


def test_the_metric_of_the_autoscaler_is_made_of_one_of_the_service() -> None:
    (rule,) = read("components/in-flight/prometheus-adapter.yaml")["rules"]["custom"]
    (patch,) = read("components/in-flight/autoscaler.yaml")
    assert patch["value"]["pods"]["metric"]["name"] == rule["name"]["as"]
    for query in (rule["seriesQuery"], rule["metricsQuery"]):
        (name,) = re.findall(r"reaction_\w+", query)
        assert CATALOGUE[name.removesuffix("_sum")].type == "histogram"


def test_every_probe_is_answered_by_the_service_once_it_scores(tmp_path: Path) -> None:
    containers = [
        read("base/deployment.yaml")["spec"]["template"]["spec"]["containers"][0],
        read("kserve/serving-runtime.yaml")["spec"]["containers"][0],
    ]
    build_bundle(tmp_path / "bundle")
    with serving(tmp_path / "bundle") as server:
        for container in containers:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert httpx.get(server.url + container[probe]["httpGet"]["path"]).status_code == 200
