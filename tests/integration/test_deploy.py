"""The files in deploy/: their tools take them, and they agree with the server and with each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from charrnn.cli.serve import serve
from tests.scrapes import promtool, read, serving_metrics, types

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "charrnn.rules.yaml"
DASHBOARD = DEPLOY / "grafana" / "charrnn.json"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OPERATIONS = DEPLOY.parent / "docs" / "operations.md"
METRIC = re.compile(r"\b(?:charrnn|process)_\w+")


def _documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def _kind(kind: str) -> list[Any]:
    """All objects of a kind."""
    found = [item for path in MANIFESTS for item in _documents(path) if item.get("kind") == kind]
    assert found, kind
    return found


def _expressions(node: Any) -> list[str]:
    """Every ``expr`` and every query of a variable, however deep."""
    if isinstance(node, list):
        return [expr for item in node for expr in _expressions(item)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("expr", "query", "metricsQuery", "seriesQuery") if key in node]
    return [expr for expr in own if isinstance(expr, str)] + _expressions(list(node.values()))


@pytest.fixture(scope="module")
def exported(tiny_bundle: Path) -> set[str]:
    """Every name of a sample that a server exports."""
    with serving_metrics(tiny_bundle) as (_, url):
        page = read(url)
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, kind in types(page).items() for suffix in suffixes.get(kind, ("",))}


def test_rules_and_dashboard_ask_only_for_what_is_exported(exported: set[str]) -> None:
    adapter = DEPLOY / "kubernetes" / "adapter-values.yaml"
    for path in (RULES, DASHBOARD, adapter):
        expressions = _expressions(_documents(path))
        asked = {name for expr in expressions for name in METRIC.findall(expr)}
        assert asked, path
        assert asked <= exported, path


def test_every_family_is_on_the_dashboard(exported: set[str]) -> None:
    shown = {
        name for expr in _expressions(json.loads(DASHBOARD.read_text())) for name in METRIC.findall(expr)
    }
    family = re.compile(r"_(bucket|sum|count)$")
    assert {family.sub("", name) for name in exported} == {family.sub("", name) for name in shown}


def test_the_documents_tables_are_complete(tiny_bundle: Path) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", OPERATIONS.read_text(), re.MULTILINE))
    with serving_metrics(tiny_bundle) as (_, url):
        page = read(url)
    alerts = {rule["alert"] for rule in _documents(RULES)[0]["groups"][0]["rules"]}
    assert rows.keys() == alerts | types(page).keys()
    assert all(rows[name].startswith(kind) for name, kind in types(page).items())
    words: dict[str, set[str]] = {}
    for family, word in re.findall(r'^(\w+)\{.*(?:reason|cause)="(\w+)"', page, re.MULTILINE):
        words.setdefault(family, set()).add(word)
    assert len(words) == 3
    for family, of_family in words.items():
        assert of_family == set(re.findall(r"`(\w+)`", rows[family])) - {"reason", "cause"}


def test_promtool_takes_the_rules_and_they_fire_when_they_should() -> None:
    checks = [("check", "rules", RULES), ("test", "rules", RULES.with_name("charrnn.rules.test.yaml"))]
    for check in [*checks, ("check", "config", RULES.with_name("scrape.yaml"))]:
        done = promtool(*check)
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    expressions = [expr for expr in _expressions(json.loads(DASHBOARD.read_text())) if "label_" not in expr]
    asked = [expr.replace("$__rate_interval", "5m") for expr in expressions if METRIC.search(expr)]
    rules = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(asked)]
    (path := tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]})
    )
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_ids_and_places_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def _serve_options(arguments: list[str]) -> dict[str, Any]:
    """What ``charrnn ARGUMENTS`` would serve with; an unknown option is an error."""
    (word, *rest) = arguments
    assert word == serve.name
    return serve.make_context(word, rest).params


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_kubernetes_objects_name_each_other() -> None:
    (deployment,), (autoscaler,), (route,) = map(
        _kind, ("Deployment", "HorizontalPodAutoscaler", "GRPCRoute")
    )
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert "replicas" not in deployment["spec"]
    target = autoscaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    (metric,) = autoscaler["spec"]["metrics"]
    (rule,) = _documents(DEPLOY / "kubernetes" / "adapter-values.yaml")[0]["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    services = {service["metadata"]["name"]: service["spec"] for service in _kind("Service")}
    assert all(spec["selector"] == labels for spec in services.values())
    for backend in route["spec"]["rules"][0]["backendRefs"]:
        assert backend["port"] in [port["port"] for port in services[backend["name"]]["ports"]]
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert _kind(kind)[0]["spec"][key]["matchLabels"] == labels


def test_kubernetes_ports_and_times_are_those_of_the_command() -> None:
    (deployment,) = _kind("Deployment")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    options = _serve_options(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": _port(options["listen"]), "metrics": _port(options["metrics"])}
    assert options["insecure"]
    probes = [container[name]["grpc"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert set(probes) == {ports["grpc"]}
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    named = [port for service in _kind("Service") for port in service["spec"]["ports"]]
    assert all(ports[port["targetPort"]] == port["port"] for port in named)
    allowed = [port["port"] for port in _kind("NetworkPolicy")[0]["spec"]["ingress"][0]["ports"]]
    assert sorted(allowed) == sorted(ports)
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["spec"]["terminationGracePeriodSeconds"] >= before + options["drain_timeout"] + 5


def test_haproxy_takes_its_file() -> None:
    if (haproxy := shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/usr/bin:/usr/local/bin")) is None:
        pytest.skip("haproxy is not installed")
    command = [haproxy, "-c", "-f", str(DEPLOY / "haproxy" / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_systemd_unit_waits_for_the_drain_and_prometheus_looks_where_it_answers() -> None:
    unit = (DEPLOY / "systemd" / "charrnn.service").read_text()
    (command,) = re.findall(r"^ExecStart=\S+ (.*)$", unit, re.MULTILINE)
    (timeout,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    options = _serve_options(command.split())
    assert int(timeout) >= options["drain_timeout"] + 5
    assert not options["insecure"]
    (scrape,) = _documents(RULES.with_name("scrape.yaml"))
    assert scrape["scrape_configs"][0]["static_configs"] == [{"targets": [options["metrics"]]}]
    assert (RULES.parent / scrape["rule_files"][0]).is_file()
