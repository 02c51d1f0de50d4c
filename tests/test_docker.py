"""The container files agree with each other and with the service; run for real by hand, and in `test_prometheus`."""

import fnmatch
import itertools
import json
import re
from typing import Any

import pytest
import yaml
from queries import DASHBOARDS, ROOT, RULES, VARIABLES, alert_queries, alert_rules, dashboard_queries, panels

from service.counts.model_counts import SECONDS_BOUNDS
from service.metrics import CATALOGUE
from service.settings import Settings

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
QUERIES = [*dashboard_queries(), *alert_queries()]
SETTINGS = {f"REACTION_{name.upper()}" for name in Settings.model_fields}


def datasources(part: Any) -> set[str]:
    """Ids of all data sources that a part of a dashboard names."""
    if isinstance(part, list):
        return {uid for inner in part for uid in datasources(inner)}
    if not isinstance(part, dict):
        return set()
    own = {part["datasource"]["uid"]} if "datasource" in part else set()
    return own | {uid for inner in part.values() for uid in datasources(inner)}


def stages() -> dict[str, list[str]]:
    """Instructions of each stage of the Dockerfile, by the stage's name."""
    found: dict[str, list[str]] = {}
    for line in DOCKERFILE.splitlines():
        head = re.fullmatch(r"FROM \S+ AS (\S+)", line)
        if head:
            found[head[1]] = []
        elif found and re.match(r"[A-Z]+ ", line):
            found[list(found)[-1]].append(line)
    return found


def exposed() -> dict[str, set[str]]:
    """Names a scrape can hold, with the labels of each."""
    names: dict[str, set[str]] = {}
    for row in CATALOGUE.values():
        labels = set(row.labels)
        if row.type == "histogram":
            names[f"{row.name}_bucket"] = labels | {"le"}
            names[f"{row.name}_sum"] = names[f"{row.name}_count"] = labels
        else:
            names[row.name] = labels
    return names


# --- compose


def test_the_one_compose_file_is_at_the_root_where_it_is_found_from_docker_too() -> None:
    names = {"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}
    assert [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("*/*compose*.y*ml"))] == []
    assert [path.name for path in ROOT.iterdir() if path.name in names] == ["compose.yaml"]


def test_compose_uses_nothing_that_one_of_its_two_generations_refuses() -> None:
    # `version` is obsolete in v2; `name` and `include` are unknown to v1
    assert set(COMPOSE) == {"services", "volumes"}
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_can_write_nothing_but_its_volumes_and_has_no_privileges(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), "open to this machine only"
    if "build" not in service:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"]), "an exact release"
    for volume in service.get("volumes", ()):
        source, target, *mode = volume.split(":")
        assert target.startswith("/")
        if source.startswith("."):
            assert (ROOT / source).is_dir()
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


def test_the_service_waits_for_a_bundle_and_prometheus_for_a_ready_service() -> None:
    services = COMPOSE["services"]
    assert services["service"]["depends_on"]["bundle"]["condition"] == "service_completed_successfully"
    assert services["prometheus"]["depends_on"]["service"]["condition"] == "service_healthy"
    written = re.search(r'"--dir", "([^"]+)"', stages()["trainer"][-1])
    assert written
    assert services["service"]["environment"]["REACTION_BUNDLE"] == f"{written[1]}/bundle"
    assert services["service"]["volumes"] == ["bundles:/bundles:ro"]
    assert services["bundle"]["volumes"] == ["bundles:/bundles"]


def test_containers_are_told_real_settings_only() -> None:
    told = set(COMPOSE["services"]["service"]["environment"])
    told |= set(re.findall(r"(REACTION_[A-Z_]+)=", " ".join(stages()["serving"])))
    assert told
    assert told <= SETTINGS


# --- images


def test_stages_that_run_are_not_root_and_start_without_a_shell() -> None:
    for name in ("serving", "trainer"):
        lines = stages()[name]
        assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
        assert json.loads(lines[-1].removeprefix("CMD "))[0] == "python"
    assert all(
        base.startswith("python:3.11-slim-") for base in re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE)
    )


def test_the_serving_image_holds_the_service_alone() -> None:
    lines = stages()["serving"]
    assert [line for line in lines if line.startswith("COPY ")] == [
        "COPY --from=serving-builder /opt/venv /opt/venv",
        "COPY service ./service",
    ]
    assert any(line.startswith("HEALTHCHECK ") and "/readyz" in line for line in lines)


def test_what_an_image_copies_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = [line[1:] for line in lines if line.startswith("!")]
    copied = [
        source
        for stage in stages().values()
        for line in stage
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert any(fnmatch.fnmatch(source, pattern) for pattern in sent), f"{source} is not in the build context"


# --- Prometheus


def test_prometheus_scrapes_the_port_the_service_listens_on() -> None:
    config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text(encoding="utf-8"))
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert COMPOSE["services"][name]["ports"] == [f"127.0.0.1:${{REACTION_PORT:-8080}}:{port}"]
    assert f"REACTION_PORT={port}" in " ".join(stages()["serving"])
    assert config["rule_files"] == [f"/etc/prometheus/{RULES.name}"]
    assert "./docker/prometheus:/etc/prometheus:ro" in COMPOSE["services"]["prometheus"]["volumes"]


def test_every_alert_says_what_it_means_and_is_tried_both_ways() -> None:
    cases = yaml.safe_load((RULES.parent / "alerts.test.yml").read_text(encoding="utf-8"))["tests"]
    quiet = {test["alertname"] for case in cases for test in case.get("alert_rule_test", ())}
    expected = json.dumps([case.get("promql_expr_test") for case in cases])
    for rule in alert_rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["for"]
        assert rule["annotations"]["summary"]
        assert rule["alert"] in quiet
        assert rule["alert"] in expected


# --- both


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_a_query_asks_for_metrics_and_labels_that_the_service_has(query: Any) -> None:
    names = exposed()
    free = {"job", "instance"}
    assert query.metrics <= set(names)
    for name, selector in re.findall(r"(reaction_\w+)\{([^}]*)\}", query.expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        assert labels <= names[name] | free, f"{name} has no label {labels - names[name] - free}"
    known = set().union(*(names[name] for name in query.metrics)) | free
    for grouped in re.findall(r"\b(?:by|on|without|ignoring) *\(([^)]*)\)", query.expression):
        assert {label.strip() for label in grouped.split(",")} <= known
    assert "$" not in query.ready, f"a variable that no test fills in: {query.ready}"


def test_every_metric_of_the_service_is_looked_at_somewhere() -> None:
    asked = {name for query in QUERIES for name in query.metrics}
    unseen = {
        row.name
        for row in CATALOGUE.values()
        if row.name not in asked and not {f"{row.name}_{part}" for part in ("bucket", "sum", "count")} & asked
    }
    assert unseen == set()


def test_alerts_on_latency_use_a_threshold_the_buckets_can_tell() -> None:
    (slow,) = [rule["expr"] for rule in alert_rules() if rule["alert"] == "ReactionSlow"]
    threshold = float(re.findall(r"> ([\d.]+)\s*$", slow)[0])
    assert SECONDS_BOUNDS[0] < threshold < SECONDS_BOUNDS[-1]


# --- Grafana


@pytest.mark.parametrize("path", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.name)
def test_a_dashboard_is_whole_and_its_panels_do_not_overlap(path: Any) -> None:
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    source = yaml.safe_load(
        (ROOT / "docker/grafana/provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8")
    )
    uid = source["datasources"][0]["uid"]
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", dashboard["uid"])
    assert dashboard["title"]
    assert dashboard["schemaVersion"] >= 36
    assert datasources(dashboard) == {uid}
    shown = panels(dashboard)
    assert len({panel["id"] for panel in shown}) == len(shown)
    for one, other in itertools.combinations((panel["gridPos"] for panel in shown), 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
    for panel in shown:
        assert panel["type"] in {"row", "stat", "timeseries", "heatmap", "table"}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for variable in dashboard["templating"]["list"]:
        assert f"${variable['name']}" in VARIABLES


def test_grafana_finds_its_dashboards_and_prometheus_where_compose_puts_them() -> None:
    grafana = COMPOSE["services"]["grafana"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in grafana["volumes"])
    provider = yaml.safe_load(
        (ROOT / "docker/grafana/provisioning/dashboards/reaction.yaml").read_text(encoding="utf-8")
    )
    folder = provider["providers"][0]["options"]["path"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / mounts[folder]).resolve() == DASHBOARDS
    assert home.startswith(f"{folder}/")
    assert (DASHBOARDS / home.removeprefix(f"{folder}/")).is_file()
    assert (ROOT / mounts["/etc/grafana/provisioning"]).resolve() == DASHBOARDS.parent / "provisioning"
    source = yaml.safe_load(
        (ROOT / "docker/grafana/provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8")
    )
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["datasources"][0]["url"]).groups()  # type: ignore[union-attr]
    assert COMPOSE["services"][host]["ports"][0].endswith(f":{port}")
