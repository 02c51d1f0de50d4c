"""Every query that the shipped dashboards and alert rules ask; run against a real Prometheus by this file's own door.

    python tests/queries.py http://localhost:9090

asks each of them and says which Prometheus refuses, and which find nothing although the service is scraped.
"""

import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"
RULES = ROOT / "docker" / "prometheus" / "alerts.yml"

# What Grafana fills in before it asks. A range as long as the stack may have been up in a short check.
VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "5m",
    "$__interval": "15s",
    "$model": ".*",
    "$instance": ".*",
    "$field": ".*",
}


@dataclass(frozen=True)
class Query:
    """One expression of PromQL and where it stands; `quiet` ones find nothing while all is well."""

    where: str
    expression: str
    quiet: bool = False

    @property
    def ready(self) -> str:
        """The expression with Grafana's variables filled in."""
        text = self.expression
        for name, value in sorted(VARIABLES.items(), key=lambda item: -len(item[0])):
            text = text.replace(name, value)
        return text

    @property
    def metrics(self) -> set[str]:
        """Names of our metrics in it."""
        return set(re.findall(r"\breaction_[a-z0-9_]+", self.expression))


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels, those inside rows too."""
    return [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", ()))]


def dashboard_queries() -> list[Query]:
    """Panels' targets, variables' label queries and annotations."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for panel in panels(dashboard):
            found += [Query(f"{path.name}: {panel['title']}", target["expr"]) for target in panel.get("targets", ())]
        for note in dashboard["annotations"]["list"]:
            found.append(Query(f"{path.name}: annotation {note['name']}", note["expr"], quiet=True))
        for variable in dashboard["templating"]["list"]:
            label_values = re.fullmatch(r"label_values\((.+), *\w+\)", variable.get("definition", ""))
            if label_values:
                found.append(Query(f"{path.name}: variable {variable['name']}", label_values[1]))
    return found


def alert_rules() -> list[dict[str, Any]]:
    """Every rule of every group."""
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def alert_queries() -> list[Query]:
    """Expressions of the alerts."""
    return [Query(f"{RULES.name}: {rule['alert']}", rule["expr"], quiet=True) for rule in alert_rules()]


def ask(prometheus: str, expression: str) -> list[Any]:
    """The result of an instant query; raises `urllib.error.HTTPError` where Prometheus refuses the expression."""
    url = f"{prometheus.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def main(prometheus: str) -> int:
    """Ask everything and print the outcome a line; 1 if a query was refused or a panel stays empty."""
    failures = 0
    for query in dashboard_queries() + alert_queries():
        try:
            result = ask(prometheus, query.ready)
        except urllib.error.HTTPError as error:
            outcome = f"REFUSED {json.load(error).get('error')}"
        else:
            outcome = f"{len(result)} series" if result or query.quiet else "EMPTY"
        failures += outcome.startswith(("REFUSED", "EMPTY"))
        sys.stdout.write(f"{outcome:>12}  {query.where}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
