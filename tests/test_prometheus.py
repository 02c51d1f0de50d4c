"""The shipped configuration, rules and dashboards in a real Prometheus that scrapes a real service.

Runs where `prometheus` and `promtool` are installed (Debian: the package `prometheus`); `.ci/run` installs them where
it may.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
import yaml
from queries import ROOT, RULES, Query, alert_queries, ask, dashboard_queries
from serving import ROW_CANDIDATES, ROW_CONTEXT, build_bundle, serving


def why_skipped(environment: Mapping[str, str]) -> str:
    """Why nothing here runs; louder where a change is judged by what ran."""
    reason = "no prometheus and promtool on PATH (Debian: apt-get install prometheus)"
    if environment.get("CI", "").lower() in {"1", "true"}:
        return f"NOT CHECKED IN CI: configuration, alert rules and dashboards: {reason}"
    return reason


PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
if PROMETHEUS is None or PROMTOOL is None:
    pytest.skip(why_skipped(os.environ), allow_module_level=True)
SCRAPES = 6
REQUESTS = 50


def promtool(*words: str) -> None:
    done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has scraped a service under traffic a few times."""
    place = tmp_path_factory.mktemp("prometheus")
    build_bundle(place / "bundle")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    feedback = {"feedback_secret": "a-secret-of-the-test", "feedback_ratio": 1, "feedback_window_seconds": 1}
    with serving(place / "bundle", **feedback) as server:
        config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(RULES)]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [server.url.removeprefix("http://")]
        (place / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [
            PROMETHEUS,
            f"--config.file={place / 'prometheus.yml'}",
            f"--storage.tsdb.path={place / 'data'}",
            f"--web.listen-address={address}",
        ]
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for_scrapes(f"http://{address}", server.url)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(30)


def wait_for_scrapes(prometheus: str, service: str) -> None:
    """Keep the service busy until counters were seen at several points in time, also those of windows that are over."""
    body = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES, "top_k": 2}
    seen: dict[str, set[str]] = {}
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for _ in range(REQUESTS):
            answer = httpx.post(f"{service}/score", json=body)
            assert answer.status_code == 200
        event = {"token": answer.json()["feedback_tokens"][0], "click": True}
        assert httpx.post(f"{service}/feedback", json=event).status_code == 202
        with contextlib.suppress(OSError):  # not listening yet
            for metric in ("reaction_candidates_total", 'reaction_feedback_scored_total{event="click"}'):
                found = ask(prometheus, f"sum({metric})[1m:1s]")
                seen[metric] = {value for series in found for _, value in series["values"]}
        if seen and min(len(values) for values in seen.values()) >= SCRAPES:
            return
        time.sleep(0.3)
    pytest.fail(f"expected {SCRAPES} different scrapes, got {seen}")


def test_configuration_and_rules_are_valid(tmp_path: Path) -> None:
    text = (RULES.parent / "prometheus.yml").read_text(encoding="utf-8")
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace(f"/etc/prometheus/{RULES.name}", str(RULES)), encoding="utf-8")
    promtool("check", "config", str(config))


def test_each_alert_fires_on_what_it_is_for_and_is_quiet_otherwise() -> None:
    promtool("test", "rules", str(RULES.parent / "alerts.test.yml"))


@pytest.mark.parametrize("query", dashboard_queries(), ids=lambda query: query.where)
def test_a_panel_of_the_dashboard_shows_something(prometheus: str, query: Query) -> None:
    assert ask(prometheus, query.ready) or query.quiet


def test_every_alert_is_evaluated_and_none_fires_on_a_service_that_is_well(prometheus: str) -> None:
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules", timeout=10) as answer:
        groups = json.load(answer)["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(alert_queries())
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_prometheus_counts_what_clients_sent(prometheus: str) -> None:
    (scored,) = ask(prometheus, 'sum(reaction_requests_total{route="/score",status="200"})')
    (candidates,) = ask(prometheus, "sum(reaction_candidates_total)")
    assert int(scored["value"][1]) > 0
    assert int(candidates["value"][1]) == len(ROW_CANDIDATES) * int(scored["value"][1])


def test_the_autoscaler_s_metric_says_how_many_requests_were_in_progress(prometheus: str) -> None:
    rules = yaml.safe_load(
        (ROOT / "kubernetes/components/in-flight/prometheus-adapter.yaml").read_text(encoding="utf-8")
    )
    query = rules["rules"]["custom"][0]["metricsQuery"]
    (found,) = ask(prometheus, query.replace("<<.GroupBy>>", "job").replace("<<.LabelMatchers>>", 'job="reaction"'))
    assert 0 < float(found["value"][1]) <= 1  # its only client sends one after the other
