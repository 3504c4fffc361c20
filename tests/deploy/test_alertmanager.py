"""alertmanager/ under the real Alertmanager, amtool and amlint: who hears what, what mutes what, and how it reads."""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay_otel.contract.__main__ import main as contract
from relay_otel.contract.render_alertmanager import render_reduced
from tools.alerting import Alertmanager, Sink
from tools.process import HOST, ROOT, Process, answers, await_, fetch, free_port, tool
from tools.stack import Prometheus

FOLDER = ROOT / "alertmanager"
CONFIGS = ("alertmanager.yml", "alertmanager.reduced.yml")
ENVIRONMENTS = ("production", "beta", "unknown")
AMLINT = Path(sys.executable).with_name("amlint")

RECEIVER = {"critical": "critical", "high": "ops-team", "medium": "dev-team", "low": "log-only", "none": "log-only"}
"""By severity; Watchdog has its own."""

COLLECTOR_PARTS = (
    "CollectorRefused",
    "CollectorMemoryLimited",
    "CollectorExportFailing",
    "CollectorQueueNearlyFull",
    "CollectorDataLoss",
)
MUTES = {
    "Deployment": {"HighErrorRate", "HighLatency"},
    "DatabaseMaintenance": {"DatabaseConnectionDown", "SlowQueries"},
    "DatabaseConnectionDown": {"HighErrorRate", "DatabasePoolExhausted", "DatabasePoolSaturated", "SlowQueries"},
    "ApiDown": {"ApiTelemetryMissing", "NoTraffic", "HighErrorRate", "HighLatency", "ApdexLow"},
    "CollectorDown": {"ApiTelemetryMissing", "NoTraffic", *COLLECTOR_PARTS},
    "LLMDailyBudgetExceeded": {"LLMDailyBudget80"},
    "WebVitalsPoor": {"WebVitalsNeedImprovement"},
    "ErrorBudgetExhausted": {"ErrorBudgetLow"},
}
"""While one fires, which are kept back where environments are equal. Other pairs of alerts have no such relation."""


# -- what is known of the alerts and told by the tools --


def alert_rules() -> dict[str, dict[str, str]]:
    """Every alert of prometheus/rules/: its name -> the labels that its rule gives it."""
    found = {}
    for file in sorted((ROOT / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            found.update({rule["alert"]: rule["labels"] for rule in group["rules"] if "alert" in rule})
    assert found, "prometheus/rules/ has no alert: run `make generate`"
    return found


@pytest.fixture(scope="module")
def rules() -> dict[str, dict[str, str]]:
    return alert_rules()


def labels_of(name: str, rule: Mapping[str, str], environment: str) -> dict[str, str]:
    return {"alertname": name, "environment": environment, "severity": rule["severity"], "team": rule["team"]}


def receiver_of(labels: Mapping[str, str], *, reduced: bool) -> str:
    """Where an alert should go."""
    name, severity = labels["alertname"], labels["severity"]
    if name == "Watchdog":
        return "watchdog"
    urgent = name == "ApiDown" or name.startswith("ErrorBudgetBurn")
    return "dev-team" if reduced and severity != "none" and not urgent else RECEIVER[severity]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True, check=False)


def amlint_test(config: Path, cases: list[dict[str, Any]], folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The outcome of each case, and the routes that were reached."""
    file = folder / "cases.yml"
    file.write_text(json.dumps(cases))  # JSON is YAML
    done = run(AMLINT, "test", config, file, "--format=json", "--coverage")
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    return told["tests"], told["coverage"]


def muted(config: Path, cases: list[tuple[dict[str, str], list[dict[str, str]]]], folder: Path) -> list[bool]:
    """Whether each alert is muted while the others of its case fire, as amlint simulates it."""
    asked = [{"labels": labels, "firing": firing, "inhibited": False} for labels, firing in cases]
    outcomes, _ = amlint_test(config, asked, folder)
    return [outcome["inhibited"] for outcome in outcomes]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


# -- the files --


@pytest.mark.parametrize("name", CONFIGS)
def test_amtool_and_amlint_find_nothing(name):
    """`amtool check-config` accepts both files, and amlint has no warning, also about alerts that do not exist."""
    checked = run(tool("amtool"), "check-config", FOLDER / name)
    linted = run(AMLINT, "check", "--strict", "--format=json", "--rules=prometheus/rules/*.yml", FOLDER / name)

    assert (checked.returncode, checked.stderr) == (0, "")
    assert (linted.returncode, json.loads(linted.stdout)) == (0, [])


@pytest.mark.parametrize(
    ("right", "wrong", "code"),
    [
        ('alertname=~"HighErrorRate|HighLatency"\'', 'alertname=~"HighErorRate|HighLatency"\'', "unknown-alertname"),
        ("receiver: ops-team", "receiver: ops-tem", "undefined-receiver"),
        ("equal: [environment]\n\n  # The work", "\n\n  # The work", "inhibit-no-equal"),
    ],
)
def test_amlint_finds_a_slip(tmp_path, right, wrong, code):
    """Negative control: a misspelt alert, a receiver that is not there and a missing `equal` are found."""
    text = (FOLDER / "alertmanager.yml").read_text()
    assert text.count(right) == 1
    (tmp_path / "alertmanager.yml").write_text(text.replace(right, wrong).replace("templates: [", "templates: []  # ["))

    linted = run(
        AMLINT, "check", "--strict", "--format=json", "--rules=prometheus/rules/*.yml", tmp_path / "alertmanager.yml"
    )

    assert linted.returncode == 1
    assert any(finding["code"].endswith(code) for finding in json.loads(linted.stdout))


@pytest.mark.parametrize(
    ("right", "wrong"), [('"HighErrorRate|', '"HighErrorRate(|'), ("receiver: ops", "reciver: ops")]
)
def test_amtool_refuses_a_typo(tmp_path, right, wrong):
    """Negative control: a matcher that is no pattern and a misspelt key do not pass `amtool check-config`."""
    text = (FOLDER / "alertmanager.yml").read_text()
    assert right in text
    (tmp_path / "alertmanager.yml").write_text(text.replace(right, wrong, 1))

    assert run(tool("amtool"), "check-config", tmp_path / "alertmanager.yml").returncode == 1


def test_the_reduced_file_is_generated(tmp_path, capsys):
    """`relay_otel.contract generate` writes alertmanager.reduced.yml, and `--check` names it when it is stale."""
    for folder in ("contract", "alertmanager"):
        for file in sorted((ROOT / folder).glob("*.y*ml")):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    words = ["--contract", str(tmp_path / "contract"), "generate"]
    contract(words)
    reduced = tmp_path / "alertmanager" / "alertmanager.reduced.yml"
    fresh = reduced.read_text()
    reduced.write_text(fresh + "# edited\n")
    capsys.readouterr()

    assert fresh == (FOLDER / "alertmanager.reduced.yml").read_text()
    assert contract([*words, "--check"]) == 1
    assert capsys.readouterr().err == "alertmanager/alertmanager.reduced.yml is stale; run make generate.\n"
    assert contract(words) == 0
    assert reduced.read_text() == fresh


def test_the_quiet_file_tells_nobody():
    """The same routes and inhibitions; receivers by name, without a way to anybody and without a secret."""
    ours, quiet = (yaml.safe_load((FOLDER / name).read_text()) for name in (CONFIGS[0], "alertmanager.quiet.yml"))

    assert {name: quiet[name] for name in ("route", "inhibit_rules")} == {
        name: ours[name] for name in ("route", "inhibit_rules")
    }
    assert quiet["receivers"] == [{"name": each["name"]} for each in ours["receivers"]]
    assert quiet["global"] == {"resolve_timeout": ours["global"]["resolve_timeout"]}
    assert "_file" not in yaml.safe_dump(quiet)


def test_the_soft_launch_needs_a_route_to_developers():
    """Without a route to dev-team there is nobody for the soft launch to send alerts to."""
    text = (FOLDER / "alertmanager.yml").read_text().replace("receiver: dev-team", "receiver: default")

    with pytest.raises(ValueError, match="has no route to dev-team; add one"):
        render_reduced(text)


@pytest.mark.parametrize(("variable", "reduced"), [({}, False), ({"RELAY_ALERTS": "reduced"}, True)])
def test_the_command_line_of_the_readme_starts_it(tmp_path, variable, reduced):
    """The README's command starts Alertmanager as it lies, with the routes that RELAY_ALERTS names."""
    port = free_port()
    command = re.search(r"^alertmanager .*$", (FOLDER / "README.md").read_text(), re.M)
    assert command is not None
    line = command[0].replace("127.0.0.1:9093", f"{HOST}:{port}").replace("data/alertmanager", str(tmp_path / "data"))
    environment = {key: value for key, value in os.environ.items() if key != "RELAY_ALERTS"} | variable
    environment["PATH"] = f"{tool('alertmanager').parent}:{environment['PATH']}"
    url = f"http://{HOST}:{port}"

    with Process(
        "Alertmanager",
        ["bash", "-c", f"exec {line}"],
        ready=lambda: answers(f"{url}/-/ready"),
        ports={"port": port},
        environment=environment,
    ):
        status = json.loads(fetch(f"{url}/api/v2/status"))

    assert status["cluster"]["status"] == "disabled"
    assert ("alertname!~" in status["config"]["original"]) is reduced


# -- routing --


@pytest.mark.parametrize("name", CONFIGS)
def test_every_alert_reaches_its_receiver(rules, tmp_path, name):
    """Every alert in every environment goes to its severity's receiver and no other; every route is reached."""
    reduced = name != "alertmanager.yml"
    expected = {}
    for (alert, rule), environment in itertools.product(rules.items(), ENVIRONMENTS):
        labels = labels_of(alert, rule, environment)
        expected[alert, environment] = {"labels": labels, "expect": [receiver_of(labels, reduced=reduced)]}
    cases = [
        *expected.values(),
        # A source of the user's own.
        {"labels": {"alertname": "Backup", "severity": "none"}, "expect": ["log-only"]},
        {"labels": {"alertname": "NoSeverity"}, "expect": ["dev-team" if reduced else "default"]},
    ]

    outcomes, coverage = amlint_test(FOLDER / name, cases, tmp_path)

    assert [outcome for outcome in outcomes if not outcome["passed"]] == []
    assert len(outcomes) == 3 * len(rules) + 2
    assert (coverage["percent"], coverage["uncovered"]) == (100, [])


@pytest.mark.parametrize("reduced", [False, True])
def test_the_real_alertmanager_routes_so(rules, sink, reduced):
    """Alertmanager itself names the same receiver for every alert in every environment."""
    expected = {}
    with Alertmanager(**sink.urls, reduced=reduced) as alertmanager:
        for (alert, rule), environment in itertools.product(rules.items(), ENVIRONMENTS):
            labels = labels_of(alert, rule, environment)
            expected[alert, environment] = [receiver_of(labels, reduced=reduced)]
            alertmanager.post(labels)
        found = await_alerts(alertmanager, len(expected))

    assert {
        (each["labels"]["alertname"], each["labels"]["environment"]): [one["name"] for one in each["receivers"]]
        for each in found
    } == expected


def await_alerts(alertmanager: Alertmanager, count: int) -> list[dict[str, Any]]:
    """What it tells of so many alerts, once it knows them."""

    def known() -> list[dict[str, Any]] | None:
        alerts = alertmanager.alerts()
        return alerts if len(alerts) == count else None

    return await_(known, f"{alertmanager.name} did not know {count} alerts")


def test_a_route_that_nothing_reaches_is_found(rules, tmp_path):
    """Negative control: without low alerts and sources of the user's own, a route is named as not covered."""
    cases = [
        {"labels": labels_of(alert, rule, "beta")}
        for alert, rule in rules.items()
        if rule["severity"] != "low" and alert not in ("Deployment", "DatabaseMaintenance", "Watchdog")
    ]

    _, coverage = amlint_test(FOLDER / "alertmanager.yml", cases, tmp_path)

    assert coverage["percent"] < 100


def test_severity_none_reaches_no_person(rules):
    """The sources and Watchdog, and nothing else, have severity none; their receivers have neither Slack nor pager."""
    config = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())
    kinds = {each["name"]: {key for key in each if key != "name"} for each in config["receivers"]}

    assert {name for name, rule in rules.items() if rule["severity"] == "none"} == {
        "Watchdog",
        "Deployment",
        "DatabaseMaintenance",
    }
    assert kinds["log-only"] == kinds["watchdog"] == {"webhook_configs"}
    assert [name for name, kind in kinds.items() if "pagerduty_configs" in kind] == ["critical"]


# -- inhibition --


def test_exactly_the_agreed_pairs_mute(rules, tmp_path):
    """Of all pairs of alerts in one environment, those of the table mute and no others do."""
    assert MUTES.keys() | set().union(*MUTES.values()) <= rules.keys()
    pairs = list(itertools.product(rules, rules))
    cases = [
        (labels_of(target, rules[target], "beta"), [labels_of(source, rules[source], "beta")])
        for source, target in pairs
    ]

    outcomes = muted(FOLDER / "alertmanager.yml", cases, tmp_path)

    found = {pair for pair, is_muted in zip(pairs, outcomes, strict=True) if is_muted}
    assert found == {(source, target) for source, targets in MUTES.items() for target in targets}


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_mutes_another_environment(rules, tmp_path, name):
    """All alerts of beta together mute none of production, and without `environment` not even one another."""
    everywhere = [labels_of(name, rule, "beta") for name, rule in rules.items()]
    nowhere = [{key: value for key, value in labels.items() if key != "environment"} for labels in everywhere]
    cases = [
        *[(labels_of(alert, rule, "production"), everywhere) for alert, rule in rules.items()],
        *[(labels, nowhere) for labels in nowhere],
    ]

    assert not any(muted(FOLDER / name, cases, tmp_path))


def test_what_tells_of_users_is_never_muted(rules, tmp_path):
    """ErrorBudgetBurnFast and ApiDown get through whatever else fires beside them."""
    everything = [labels_of(name, rule, "beta") for name, rule in rules.items()]
    everything.append(labels_of("CollectorDown", rules["CollectorDown"], "all"))
    cases = [(labels_of(alert, rules[alert], "beta"), everything) for alert in ("ErrorBudgetBurnFast", "ApiDown")]

    assert muted(FOLDER / "alertmanager.yml", cases, tmp_path) == [False, False]


def test_without_equal_beta_mutes_production(rules, tmp_path):
    """Negative control: when `equal` is taken out of the inhibitions, the simulation shows beta muting production."""
    text, count = re.subn(r"(?m)^    equal: .*\n", "", (FOLDER / "alertmanager.yml").read_text())
    assert count == 9
    (tmp_path / "alertmanager.yml").write_text(text)
    case = (
        labels_of("HighErrorRate", rules["HighErrorRate"], "production"),
        [{"alertname": "Deployment", "environment": "beta"}],
    )

    assert muted(tmp_path / "alertmanager.yml", [case], tmp_path) == [True]


def muted_by(alertmanager: Alertmanager, count: int) -> dict[tuple[str, str], str | None]:
    """(alert, environment) -> the alert that mutes it, of so many alerts, as the real Alertmanager tells it."""
    found = await_alerts(alertmanager, count)
    names = {each["fingerprint"]: each["labels"]["alertname"] for each in found}
    told = {}
    for each in found:
        by = [names[fingerprint] for fingerprint in each["status"]["inhibitedBy"]]
        assert (each["status"]["state"] == "suppressed") is bool(by) or each["status"]["state"] == "unprocessed"
        told[each["labels"]["alertname"], each["labels"].get("environment", "")] = by[0] if by else None
    return told


def test_the_real_alertmanager_mutes_so(rules, sink):
    """Each source mutes each of its targets in its environment and not in another, and never ErrorBudgetBurnFast."""
    expected: dict[tuple[str, str], str | None] = {}
    with Alertmanager(**sink.urls) as alertmanager:
        for source, targets in MUTES.items():
            # An environment for each source: sources are targets of others.
            here, elsewhere = source.lower(), f"not-{source.lower()}"
            expected[source, here] = None
            for target in [*sorted(targets), "ErrorBudgetBurnFast"]:
                expected[target, here] = source if target in targets else None
                expected[target, elsewhere] = None
            # A target that is a source too: what it mutes by itself.
            for target in targets & MUTES.keys():
                for its in MUTES[target] & targets - {target}:
                    expected[its, elsewhere] = target
        for name, environment in expected:
            alertmanager.post(labels_of(name, rules[name], environment))
        found = muted_by(alertmanager, len(expected))

    # SlowQueries beside DatabaseMaintenance and DatabaseConnectionDown has two reasons; either may be told.
    both = ("SlowQueries", "databasemaintenance")
    assert found.pop(both) in ("DatabaseMaintenance", "DatabaseConnectionDown")
    del expected[both]
    assert found == expected


def test_a_source_without_environment_mutes_nothing(rules, sink):
    """Alertmanager takes absent labels for equal, so a source must carry `environment` to mute anything."""
    with Alertmanager(**sink.urls) as alertmanager:
        for name in rules:
            labels = labels_of(name, rules[name], "")
            alertmanager.post({key: value for key, value in labels.items() if value})
        found = muted_by(alertmanager, len(rules))

    assert found == {(name, ""): None for name in rules}


def test_a_collector_of_all_environments_mutes_in_each(rules, sink):
    """CollectorDown of environment `all` mutes what comes through it in every environment."""
    with Alertmanager(**sink.urls) as alertmanager:
        alertmanager.post(labels_of("CollectorDown", rules["CollectorDown"], "all"))
        for name in ("ApiTelemetryMissing", "CollectorDataLoss", "ErrorBudgetBurnFast"):
            for environment in ("production", "beta", "all"):
                alertmanager.post(labels_of(name, rules[name], environment))
        found = muted_by(alertmanager, 10)

    assert {name for (name, _), by in found.items() if by is None} == {"CollectorDown", "ErrorBudgetBurnFast"}
    assert {pair for pair, by in found.items() if by == "CollectorDown"} == set(
        itertools.product(("ApiTelemetryMissing", "CollectorDataLoss"), ("production", "beta", "all"))
    )


def test_narrower_sources_mute_their_like_only(sink):
    """A poor page leaves other pages alone, and a spent budget the budgets of other objectives."""
    vital, low = {"environment": "beta", "vital": "LCP"}, {"alertname": "ErrorBudgetLow", "environment": "beta"}
    with Alertmanager(**sink.urls) as alertmanager:
        alertmanager.post({"alertname": "WebVitalsPoor", "page_name": "home", **vital})
        alertmanager.post({"alertname": "WebVitalsNeedImprovement", "page_name": "home", **vital})
        alertmanager.post({"alertname": "WebVitalsNeedImprovement", "page_name": "chat", **vital})
        alertmanager.post({"alertname": "ErrorBudgetExhausted", "environment": "beta", "slo": "latency"})
        alertmanager.post({**low, "slo": "latency"})
        alertmanager.post({**low, "slo": "availability"})
        found = await_alerts(alertmanager, 6)

    assert {
        each["labels"].get("page_name") or each["labels"]["slo"] for each in found if each["status"]["inhibitedBy"]
    } == {"home", "latency"}


def test_in_the_real_one_too_beta_mutes_production_without_equal(sink):
    """Negative control: the tests above would see it if `equal` were missing."""
    alertmanager = Alertmanager(**sink.urls)
    alertmanager.config.write_text(re.sub(r"(?m)^    equal: .*\n", "", alertmanager.config.read_text()))
    with alertmanager:
        alertmanager.post({"alertname": "Deployment", "environment": "beta"})
        alertmanager.post({"alertname": "HighErrorRate", "environment": "production"})
        found = muted_by(alertmanager, 2)

    assert found == {("Deployment", "beta"): None, ("HighErrorRate", "production"): "Deployment"}


def test_a_deployment_keeps_the_page_back_while_it_runs(rules, sink):
    """HighErrorRate of beta is not sent while beta is deployed; production's is, and beta's when that ends."""
    deployment = labels_of("Deployment", rules["Deployment"], "beta")
    with Alertmanager(**sink.urls, interval=0.2) as alertmanager:
        # A critical alert waits for nothing, so its source comes first.
        alertmanager.post(deployment)
        await_alerts(alertmanager, 1)
        for environment in ("beta", "production"):
            alertmanager.post(labels_of("HighErrorRate", rules["HighErrorRate"], environment))
        sink.wait("/pagerduty")
        assert muted_by(alertmanager, 3)["HighErrorRate", "beta"] == "Deployment"
        alertmanager.post(deployment, ends=datetime.now(UTC))
        pages = sink.wait("/pagerduty", 2)

    assert [page["payload"]["group"] for page in pages] == ["production", "beta"]


# -- messages --

BEGAN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
SHOWN = "%Y-%m-%d %H:%M:%S UTC"
ANNOTATIONS = {
    "summary": "5xx answers in production",
    "description": "Errors: 12 % of 340 requests & more, above 5 %.",
    "runbook_url": "https://runbooks.example/HighErrorRate.md",
    "dashboard_url": "https://grafana.example/d/system-health?from=now-1h&to=now",
}
HIGH_ERROR_RATE = {"alertname": "HighErrorRate", "environment": "production", "severity": "critical", "team": "ops"}
FILTER = "%7Balertname%3D%22HighErrorRate%22%2Cenvironment%3D%22production%22%2Cteam%3D%22ops%22%7D"


def slack_message(**attachment: Any) -> dict[str, Any]:
    return {
        "channel": "#critical-alerts",
        "username": "Alertmanager",
        "attachments": [{"callback_id": "", "footer": "", "mrkdwn_in": ["fallback", "pretext", "text"], **attachment}],
    }


def test_slack_and_pagerduty_read_well(sink):
    """A critical alert is told to Slack and PagerDuty once when it fires and once when it ends, with all one needs."""
    ended = BEGAN + timedelta(minutes=6)
    with Alertmanager(**sink.urls, interval=0.2) as alertmanager:
        alertmanager.post(HIGH_ERROR_RATE, ANNOTATIONS, starts=BEGAN)
        sink.wait("/slack")
        sink.wait("/pagerduty")
        alertmanager.post(HIGH_ERROR_RATE, ANNOTATIONS, starts=BEGAN, ends=ended)
        slack, pagerduty = sink.wait("/slack", 2), sink.wait("/pagerduty", 2)
        url = alertmanager.url

    silence, alerts = f"{url}/#/silences/new?filter={FILTER}", f"{url}/#/alerts?filter={FILTER}"
    runbook = "<https://runbooks.example/HighErrorRate.md|Runbook>"
    dashboard = "<https://grafana.example/d/system-health?from=now-1h&amp;to=now|Dashboard>"
    said = "*5xx answers in production*\nErrors: 12 % of 340 requests &amp; more, above 5 %.\n"
    assert slack == [
        slack_message(
            title="CRITICAL: HighErrorRate in production",
            title_link=alerts,
            fallback="CRITICAL: HighErrorRate in production: 5xx answers in production",
            color="danger",
            text=f"{said}Since {BEGAN:{SHOWN}}\n\n"
            f"{runbook} · {dashboard} · <{silence}|Silence> · <{alerts}|Alertmanager>",
        ),
        slack_message(
            title="RESOLVED: HighErrorRate in production",
            title_link=alerts,
            fallback="RESOLVED: HighErrorRate in production: 5xx answers in production",
            color="good",
            text=f"{said.replace('*', '*Resolved: ', 1)}Since {BEGAN:{SHOWN}} until {ended:{SHOWN}} (6m 0s)\n\n"
            f"{runbook} · {dashboard} · <{alerts}|Alertmanager>",
        ),
    ]

    def event(action: str, **details: Any) -> dict[str, Any]:
        return {
            "routing_key": "a-routing-key",
            # One incident a group: opened and closed by the same key.
            "dedup_key": hashlib.sha256(
                b'{}/{severity="critical"}:{alertname="HighErrorRate", environment="production", team="ops"}'
            ).hexdigest(),
            "event_action": action,
            "client": "Alertmanager",
            "client_url": f"{url}/#/alerts?receiver=critical",
            "payload": {
                "summary": "HighErrorRate in production: 5xx answers in production",
                "source": "production",
                "severity": "critical",
                "class": "HighErrorRate",
                "component": "ops",
                "group": "production",
                "custom_details": {
                    "environment": "production",
                    "team": "ops",
                    "severity": "critical",
                    **details,
                },
            },
            "links": [
                {"text": "Runbook", "href": ANNOTATIONS["runbook_url"]},
                {"text": "Dashboard", "href": ANNOTATIONS["dashboard_url"]},
                {"text": "Silence", "href": silence},
            ],
        }

    told = (
        "\n5xx answers in production\nErrors: 12 % of 340 requests & more, above 5 %.\n"
        "alertname=HighErrorRate, environment=production, severity=critical, team=ops"
    )
    assert pagerduty == [
        event("trigger", firing=f"@ {BEGAN:{SHOWN}}{told}", resolved=None, num_firing=1, num_resolved=0),
        event(
            "resolve",
            firing=None,
            resolved=f"@ {BEGAN:{SHOWN}} until {ended:{SHOWN}}{told}",
            num_firing=0,
            num_resolved=1,
        ),
    ]


def test_an_alert_without_annotations_reads_well_too(sink):
    """Without summary, description, links and environment the message has no gaps: the name stands for the rest."""
    with Alertmanager(**sink.urls, interval=0.2) as alertmanager:
        alertmanager.post({"alertname": "Mine", "severity": "critical"}, starts=BEGAN)
        [slack], [pagerduty] = sink.wait("/slack"), sink.wait("/pagerduty")
        url = alertmanager.url

    filter_ = "%7Balertname%3D%22Mine%22%7D"
    assert slack == slack_message(
        title="CRITICAL: Mine",
        title_link=f"{url}/#/alerts?filter={filter_}",
        fallback="CRITICAL: Mine",
        color="danger",
        text=f"*Mine*\nSince {BEGAN:{SHOWN}}\n\n"
        f"<{url}/#/silences/new?filter={filter_}|Silence> · <{url}/#/alerts?filter={filter_}|Alertmanager>",
    )
    assert (pagerduty["payload"]["summary"], pagerduty["payload"]["source"]) == ("Mine", "unknown")
    assert pagerduty["links"] == [{"text": "Silence", "href": f"{url}/#/silences/new?filter={filter_}"}]


def test_a_group_names_its_number_and_what_tells_its_alerts_apart(sink):
    """Several alerts of a group are one message: the number in the title, each with the labels that are its own."""
    shared = {"alertname": "HighLatency", "environment": "beta", "severity": "high", "team": "ops"}
    with Alertmanager(**sink.urls, interval=0.5) as alertmanager:
        for number in range(7):
            alertmanager.post({**shared, "endpoint": f"/api/{number}"}, starts=BEGAN)
        messages = await_(
            lambda: [body for body in sink.wait("/slack") if "(7 firing)" in body["attachments"][0]["title"]] or None,
            "no message told of 7",
        )

    attachment = messages[0]["attachments"][0]
    assert messages[0]["channel"] == "#ops-alerts"
    assert (attachment["title"], attachment["color"]) == ("HIGH: HighLatency in beta (7 firing)", "warning")
    *alerts, note, _ = attachment["text"].split("\n\n")
    assert alerts == [f"*HighLatency*\nSince {BEGAN:{SHOWN}}\nendpoint=/api/{number}" for number in range(5)]
    assert note == "Not all of the 7 alerts are shown."


HOSTILE = {"summary": "<!channel> a & b", "description": "Errors: 12\n---\n- {{ .Nope }}"}


def test_a_text_from_outside_does_no_harm(sink):
    """A value with Slack's marks calls nobody, and one with YAML or a template's braces stays the text it is."""
    with Alertmanager(**sink.urls, interval=0.2) as alertmanager:
        alertmanager.post(HIGH_ERROR_RATE, HOSTILE, starts=BEGAN)
        [slack], [pagerduty] = sink.wait("/slack"), sink.wait("/pagerduty")

    assert slack["attachments"][0]["text"].startswith("*&lt;!channel&gt; a &amp; b*\nErrors: 12\n---\n- {{ .Nope }}\n")
    details = pagerduty["payload"]["custom_details"]
    assert details["firing"].startswith(f"@ {BEGAN:{SHOWN}}\n<!channel> a & b\nErrors: 12\n---\n- {{{{ .Nope }}}}\n")


def test_without_the_mark_a_text_is_taken_for_yaml(sink):
    """Negative control: a detail that does not begin with @ becomes what its text happens to mean in YAML."""
    alertmanager = Alertmanager(**sink.urls, interval=0.2)
    plain = '{{ define "pagerduty.alerts" }}{{ range . }}{{ .Annotations.description }}{{ end }}{{ end }}'
    (alertmanager.config.parent / "templates" / "redefined.tmpl").write_text(plain)
    with alertmanager:
        alertmanager.post(HIGH_ERROR_RATE, {"description": "Errors: 12"}, starts=BEGAN)
        [pagerduty] = sink.wait("/pagerduty")

    assert pagerduty["payload"]["custom_details"]["firing"] == {"Errors": 12}


@pytest.mark.parametrize(
    ("severity", "colour", "level"),
    [
        ("critical", "danger", "critical"),
        ("high", "warning", "error"),
        ("medium", "#439FE0", "warning"),
        ("low", "#808080", "info"),
        ("", "#808080", "info"),
    ],
)
def test_a_severity_has_a_colour_and_a_level(tmp_path, severity, colour, level):
    """Slack's colours and PagerDuty's four levels follow the severity."""
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"status": "firing", "commonLabels": {"severity": severity}}))

    shown = run(
        tool("amtool"),
        "template",
        "render",
        f"--template.glob={FOLDER}/templates/*.tmpl",
        f"--template.data={data}",
        '--template.text={{ template "slack.color" . }} {{ template "pagerduty.severity" . }}',
    )

    assert shown.stdout == f"{colour} {level}"


# -- the rest of the flow --


def test_the_watchdog_beats(rules, sink):
    """Watchdog goes to the dead-man's switch again and again, and to nobody else."""
    with Alertmanager(**sink.urls, interval=0.2) as alertmanager:
        alertmanager.post(labels_of("Watchdog", rules["Watchdog"], "all"))
        beats = sink.wait("/watchdog", 3)

    assert {(beat["receiver"], beat["status"], beat["alerts"][0]["labels"]["alertname"]) for beat in beats} == {
        ("watchdog", "firing", "Watchdog")
    }
    assert {post.path for post in sink.posts()} == {"/watchdog"}


def test_log_only_really_logs(rules, sink):
    """The receiver log-only is `relay-otel alerts log`, which writes a line for each alert."""
    port = free_port()
    log = Process(
        "the log",
        [sys.executable, "-m", "relay_otel.cli", "alerts", "log", f"--listen={HOST}:{port}"],
        ready=lambda: answers(f"http://{HOST}:{port}/-/healthy"),
        ports={"--listen": port},
    )
    urls = {**sink.urls, "log": f"http://{HOST}:{port}/"}
    with log, Alertmanager(**urls, interval=0.2) as alertmanager:
        alertmanager.post(
            labels_of("Deployment", rules["Deployment"], "beta"), {"summary": "beta is deployed"}, starts=BEGAN
        )
        line = await_(lambda: log.log.read_text() or None, "nothing was logged")

    [entry] = [json.loads(each) for each in line.splitlines()]
    assert datetime.fromisoformat(entry.pop("time")).tzinfo is not None
    assert entry == {
        "status": "firing",
        "alertname": "Deployment",
        "severity": "none",
        "environment": "beta",
        "team": "ops",
        "summary": "beta is deployed",
        "startsAt": f"{BEGAN:%Y-%m-%dT%H:%M:%SZ}",
        "endsAt": None,
        "receiver": "log-only",
    }


@pytest.mark.parametrize("config", ["prometheus.yml", "direct.yml"])
def test_prometheus_sends_its_alerts_there(sink, config):
    """Both configurations find Alertmanager by targets/alertmanager.yml: Watchdog beats, and it is scraped."""
    with Alertmanager(**sink.urls, interval=0.2) as alertmanager:
        targets = {"alertmanager": [alertmanager.target]}
        with Prometheus(config, targets=targets, interval=1) as prometheus:
            [beat] = sink.wait("/watchdog")[:1]
            prometheus.wait_scrape("alertmanager")
            reloaded = prometheus.value("alertmanager_config_last_reload_successful")

    assert reloaded == 1
    assert beat["alerts"][0]["labels"] == {
        "alertname": "Watchdog",
        "environment": "all",
        "severity": "none",
        "team": "ops",
    }
