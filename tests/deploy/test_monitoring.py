"""Alert rules, dashboard and documentation speak of figures that there are, and the rules work."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from listener.audit.trail import NO_AUDIT
from listener.ledger import Ledger
from listener.monitoring.health import Health
from listener.monitoring.metrics import ListenerCollector
from listener.monitoring.pulse import Pulse
from listener.monitoring.tallies import ROLES
from listener.settings import ListenerSettings
from listener.spool import Spool
from listener.turned_away import TurnedAway
from tests.tools import program
from worker.metrics import Observations

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deploy" / "monitoring"
RULES, TESTS = FOLDER / "alerts.yml", FOLDER / "alerts_test.yml"
DASHBOARD = FOLDER / "grafana-dashboard.json"
GUIDE = REPOSITORY / "docs" / "monitoring.md"

FIGURE = re.compile(r"\bmonro_[a-z0-9_]+")
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def promtool(*arguments: str, given: bytes = b"") -> None:
    command = [program("promtool", "prometheus"), *arguments]
    done = subprocess.run(command, cwd=FOLDER, input=given, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.fixture
def families(tmp_path: Path) -> list[Metric]:
    """What an idle listener and an idle worker tell."""
    settings = ListenerSettings(
        spool=tmp_path, broker="redis://127.0.0.1:1/0", site="test", open_node=True, keep_free=0,
        destinations=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}],
    )  # type: ignore[arg-type] # fmt: skip
    ledger, spool = Ledger(settings.ledger_url), Spool(settings.spool)
    registry, observations = CollectorRegistry(), Observations()
    health = Health(settings, ledger, spool, NO_AUDIT, Pulse())
    registry.register(ListenerCollector(settings, ledger, spool, health, TurnedAway(1)))
    observations.tell("cpu", list)
    found = [*registry.collect(), *observations.registry.collect()]
    ledger.close()
    return [family for family in found if family.name.startswith("monro_")]


@pytest.fixture
def names(families: list[Metric]) -> set[str]:
    return {f"{each.name}{suffix}" for each in families for suffix in SUFFIXES[each.type]}


def expressions(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_rules_and_scraping_are_as_prometheus_wants_them() -> None:
    promtool("check", "rules", RULES.name)
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_figures_are_named_as_prometheus_wants_them(families: list[Metric]) -> None:
    class Ours(CollectorRegistry):
        def collect(self) -> Iterator[Metric]:
            yield from families

    promtool("check", "metrics", given=generate_latest(Ours()))


def test_alerts_fire_when_they_shall_and_only_then() -> None:
    promtool("test", "rules", TESTS.name)


def test_every_alert_is_tested_both_ways_and_has_a_page_in_the_guide() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert len(alerts) == len(set(alerts)) > 15
    tests = TESTS.read_text()
    guide = GUIDE.read_text()
    for alert in alerts:
        outcomes = re.findall(rf"alertname: {alert}\n\s+eval_time: \w+\n\s+exp_alerts:(.*)", tests)
        assert {bool(outcome.strip()) for outcome in outcomes} == {True, False}, alert
        assert f"runbook: docs/monitoring.md#{alert.lower()}" in RULES.read_text()
        assert f"\n#### {alert}\n" in guide


def test_rules_and_dashboard_ask_for_figures_that_there_are(names: set[str]) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = "\n".join(expressions(dashboard["panels"]))
    variables = json.dumps(dashboard["templating"])

    assert len(FIGURE.findall(asked)) > 20
    for text in (asked, variables, RULES.read_text(), TESTS.read_text()):
        assert set(FIGURE.findall(text)) <= names


def test_the_dashboard_s_queries_can_be_parsed(tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    rules = [
        {"record": f"panel_{number}", "expr": asked.replace("$__rate_interval", "5m")}
        for number, asked in enumerate(expressions(dashboard["panels"]))
    ]
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

    promtool("check", "rules", str(path))


def test_the_guide_lists_every_figure_and_no_other(families: list[Metric]) -> None:
    told = {each.name + ("_total" if each.type == "counter" else "") for each in families}
    listed = set(re.findall(r"^\| `(monro_[a-z0-9_]+)`", GUIDE.read_text(), re.MULTILINE))

    assert listed == told


def test_alerts_name_labels_as_the_figures_have_them(families: list[Metric]) -> None:
    """A typing error would silence them."""
    checks = {sample.labels["check"] for each in families
              if each.name == "monro_readyz_check_ok" for sample in each.samples}  # fmt: skip
    rules = RULES.read_text()
    assert set(re.findall(r'check!?="(\w+)"', rules)) <= checks
    assert set(re.findall(r'role="(\w+)"', rules)) == set(ROLES)
    reasons = {sample.labels["reason"] for each in families
               if each.name in {"monro_associations_rejected", "monro_instances_refused"}
               for sample in each.samples}  # fmt: skip
    assert set(re.findall(r'reason="([^"]+)"', rules)) <= reasons
