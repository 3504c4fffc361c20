"""contract/rules.yaml: what cannot be read, what makes no sense, and what becomes of it in Prometheus' files."""

from pathlib import Path

import pytest
import yaml

from relay_otel.contract import lint_rules as checks
from relay_otel.contract.fields import ContractError
from relay_otel.contract.lint_rules import lint_rules, series
from relay_otel.contract.load import Contract, load
from relay_otel.contract.load_rules import Rules
from relay_otel.contract.promql_labels import read_expression
from relay_otel.contract.render_rules import filler, le, render_kubernetes, rule_files
from relay_otel.contract.timing import Timing, as_text, number
from relay_otel.contract.tuning import tuned_by
from tests.contract.small import SLOS, small_contract

ROOT = Path(__file__).resolve().parents[2]
DURATION = "http_request_duration_seconds"

RULES = """\
links:
  runbook: https://books.example/{alert}.md
  dashboard: https://boards.example/d/{dashboard}
thresholds:
  - {name: slow_seconds, value: 0.5, unit: s, edge_of: http_request_duration_seconds, why: people wait}
  - {name: slow_share, value: 0.05, unit: ratio, why: one in twenty}
selectors:
  chat_paths: /chat.*
parts:
  - name: small
    title: Small
    dashboard: board
    recordings:
      - record: slow:ratio
        labels: {kind: chat}
        expr: |
          1 - sum by (environment) (rate(http_request_duration_seconds_bucket{${le:slow_seconds}, path=~"${chat_paths}"}[5m]))
            / sum by (environment) (rate(http_request_duration_seconds_count{path=~"${chat_paths}"}[5m]))
      - record: slo:observed_seconds:30d
        every: 1m
        expr: ${evaluation_seconds} * count by (slo, environment) (count_over_time(requests_total[30d]))
      - record: slo:target_percent
        every: 1m
        expr: ${targets}
    alerts:
      - alert: Slow
        severity: high
        team: ops
        panel: 3
        for: 5m
        expr: slow:ratio > ${slow_share} and on (environment) up offset 1h
        summary: "{{ $labels.environment }} is slow"
        description: >-
          {{ $value }} of the requests took longer than ${slow_seconds} s; the limit is ${slow_share:percent}.
ranges:
  slow:ratio: [0, 1]
upstream:
  up: [job, instance, environment]
"""  # noqa: E501


def small_rules(folder: Path, old: str = "", new: str = "", slos: str = SLOS) -> Path:
    """The small contract with rules, of which one piece of text, found exactly once, is another."""
    assert not old or RULES.count(old) == 1, f"{old!r} must stand once"
    small_contract(folder)
    (folder / "slos.yaml").write_text(slos, encoding="utf-8")
    (folder / "rules.yaml").write_text(RULES.replace(old, new) if old else RULES, encoding="utf-8")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Contract:
    return load(small_rules(tmp_path))


# -- reading --

# what stands there -> what takes its place -> the sentence, after the folder
UNREADABLE = [
    ("links:\n", "link:\n",
     "the file has the unknown key 'link'; known are links, thresholds, selectors, parts, ranges and upstream."),
    ("  runbook: https://books.example/{alert}.md\n", "",
     "runbook of links of the file is missing; write text, in quotes if YAML takes it for something else."),
    ("{alert}.md", "books.md",
     "runbook of links of the file is 'https://books.example/books.md'; "
     "write the address with {alert} where the name belongs."),
    ("/d/{dashboard}", "/d",
     "dashboard of links of the file is 'https://boards.example/d'; "
     "write the address with {dashboard} where the name belongs."),
    ("value: 0.05", "value: much", "value of slow_share is 'much'; write a number."),
    (", why: one in twenty", "",
     "why of slow_share is missing; write text, in quotes if YAML takes it for something else."),
    ("unit: ratio", "units: ratio",
     "slow_share has the unknown key 'units'; known are name, value, unit, edge_of and why."),
    ("chat_paths: /chat.*", "chat_paths: 7",
     "chat_paths of selectors of the file is 7; write text, in quotes if YAML takes it for something else."),
    ("    title: Small\n", "",
     "title of small is missing; write text, in quotes if YAML takes it for something else."),
    ("    title: Small\n", "    titel: Small\n",
     "small has the unknown key 'titel'; known are name, title, dashboard, environment, recordings and alerts."),
    ("labels: {kind: chat}", "labels: chat",
     "labels of slow:ratio is 'chat'; write a mapping of names to values."),
    ("labels: {kind: chat}", "labels: {kind: yes}",
     "kind of labels of slow:ratio is True; write text, in quotes if YAML takes it for something else."),
    ("severity: high", "severity: page",
     "severity of Slow is 'page'; choose critical, high, medium, low or none."),
    ("        team: ops\n", "",
     "team of Slow is missing; write text, in quotes if YAML takes it for something else."),
    ('        summary: "{{ $labels.environment }} is slow"\n', "",
     "summary of Slow is missing; write text, in quotes if YAML takes it for something else."),
    ("for: 5m", "hold: 5m",
     "Slow has the unknown key 'hold'; "
     "known are alert, severity, team, panel, for, keep_firing_for, expr, summary and description."),
    ("panel: 3", "panel: three",
     "panel of Slow is 'three'; write a whole number of at least 1."),
    ("slow:ratio: [0, 1]", "slow:ratio: [1, 0]",
     "slow:ratio of ranges of the file is [1, 0]; write the least and the most, such as [0, 3600]."),
    ("slow:ratio: [0, 1]", "slow:ratio: 1",
     "slow:ratio of ranges of the file is 1; write a list of numbers."),
    ("up: [job, instance, environment]", "up: job",
     "up of upstream of the file is 'job'; write a list of texts, each in quotes."),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentence"), UNREADABLE)
def test_rules_that_cannot_be_read_are_one_sentence(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    """An error names the file, the rule, the field and its value, and says what to write instead."""
    with pytest.raises(ContractError) as refused:
        load(small_rules(tmp_path, old, new))

    assert str(refused.value) == f"{tmp_path}/rules.yaml: {sentence}"


def test_a_contract_without_rules_has_none(tmp_path: Path) -> None:
    """rules.yaml may be absent: then there are no rules and nothing to find."""
    contract = load(small_contract(tmp_path))

    assert (contract.rules, lint_rules(contract)) == (Rules(), [])


# -- sense --

# check -> (what stands there, what takes its place, the findings)
BROKEN = [
    ("holes_are_known", "${slow_share} and", "${slow_shar} and",
     ["Slow: ${slow_shar} is neither a threshold nor a selector; add it to rules.yaml or correct it."]),
    ("holes_are_known", "${le:slow_seconds}", "${le:slow_second}",
     ["slow:ratio: ${le:slow_second} is neither a threshold nor a selector; add it to rules.yaml or correct it."]),
    ("holes_are_known", "${slow_share:percent}", "${seconds:soon}",
     ["Slow: ${seconds:soon} is neither a threshold nor a selector; add it to rules.yaml or correct it."]),
    ("thresholds_are_used", "selectors:\n",
     "  - {name: idle, value: 1, unit: s, why: nothing}\nselectors:\n  nobody: x\n",
     ["idle: no rule uses it; remove it or use it.", "nobody: no rule uses it; remove it or use it."]),
    ("thresholds_are_edges", "value: 0.5", "value: 0.4",
     [f"slow_seconds: 0.4 is no bucket edge of {DURATION}."]),
    ("thresholds_are_edges", ", edge_of: http_request_duration_seconds", "",
     ["slow:ratio: the threshold slow_seconds chooses a bucket; say with edge_of: of which histogram."]),
    ("names_stand_once", "ranges:\n",
     '      - {alert: Slow, severity: low, team: dev, expr: up == 0, '
     'summary: "{{ $labels.environment }}", description: "{{ $value }}"}\nranges:\n',
     ["Slow: the name stands twice."]),
    ("names_stand_once", "alert: Slow", "alert: slow-requests",
     ["slow-requests: an alert's name is words in capitals without spaces, as its runbook's file is."]),
    ("ranges_are_of_series", "slow:ratio: [0, 1]", "slow:ration: [0, 1]",
     ["slow:ration: it has a range, and nobody emits it; correct the name under ranges."]),
    ("durations_are_durations", "for: 5m", "for: 5 minutes",
     ["Slow: for is '5 minutes'; write a number and one of ms, s, m, h, d, w."]),
    ("durations_are_durations", "      - record: slo:target_percent\n        every: 1m",
     "      - record: slo:target_percent\n        every: often",
     ["slo:target_percent: every is 'often'; write a number and one of ms, s, m, h, d, w."]),
    ("alerts_say_how_much", "{{ $value }} of", "Many of",
     ["Slow: its description tells no {{ $value }}."]),
    ("alerts_say_how_much", "{{ $labels.environment }} is slow", "It is slow",
     ["Slow: neither text tells {{ $labels.environment }}."]),
    ("names_exist", "up offset 1h", "upp offset 1h",
     ["Slow: nobody emits upp; correct it, or list it under upstream.",
      "Slow: and on environment, which is on one side only; correct it, or list it under upstream."]),
    ("names_exist", '_count{path=~', '_count{paht=~',
     [f"slow:ratio: {DURATION}_count has no label paht, only environment, instance, job, path; "
      "correct it, or list it under upstream."]),
    ("names_exist", "count by (slo, environment)", "count by (slo, enviroment)",
     ["slo:observed_seconds:30d: count by enviroment, which it does not have, "
      "only environment, instance, job, slo; correct it, or list it under upstream."]),
    ("names_exist", "on (environment)", "on (kind)",
     ["Slow: and on kind, which is on one side only; correct it, or list it under upstream."]),
    ("names_exist", "up offset 1h", "up offset",
     ["Slow: its expression is no PromQL (unexpected end of input in offset, expected duration)."]),
]  # fmt: skip


def test_sound_rules_have_no_findings(small: Contract) -> None:
    """The rules that every other test here breaks are sound before."""
    assert lint_rules(small) == []


@pytest.mark.parametrize(("check", "old", "new", "findings"), BROKEN)
def test_broken_rules_have_exactly_their_finding(
    tmp_path: Path, check: str, old: str, new: str, findings: list[str]
) -> None:
    """A check finds what it is for, says so in one sentence, and no other fires without cause."""
    contract = load(small_rules(tmp_path, old, new))
    unfilled = check in ("holes_are_known", "thresholds_are_used")

    assert lint_rules(contract) == findings
    assert list(getattr(checks, check)(contract.rules if unfilled else contract)) == findings


def test_every_check_has_a_case_and_a_reason() -> None:
    """No check stands without rules that break it, nor without saying why it is there."""
    every = (checks.holes_are_known, checks.thresholds_are_used, *checks.CHECKS)

    assert {check.__name__ for check in every} == {check for check, *_ in BROKEN}
    assert [check.__name__ for check in every if not check.__doc__] == []


def test_recorded_series_have_the_labels_of_their_expressions(small: Contract) -> None:
    """A rule may read another's series, whose labels follow from its expression and its own."""
    known = series(small)

    assert known["slow:ratio"] == {"environment", "kind"}
    assert known["slo:target_percent"] == {"slo", "environment"}
    assert known[f"{DURATION}_bucket"] == {"path", "environment", "le", "job", "instance"}
    assert known["requests_total"] == {"slo", "environment", "job", "instance"}
    assert DURATION not in known


KNOWN = {"x": frozenset({"a", "b"}), "y_bucket": frozenset({"a", "le"})}


@pytest.mark.parametrize(
    ("expr", "labels", "problems"),
    [
        ("x", {"a", "b"}, []),
        ("sum(x)", set(), []),
        ("sum by (a) (rate(x[5m]))", {"a"}, []),
        ("sum without (a) (x)", {"b"}, []),
        ("max_over_time(x[1h:5m]) + on (a) x", {"a", "b"}, []),
        ("histogram_quantile(0.5, sum by (le, a) (rate(y_bucket[5m])))", {"a"}, []),
        ('label_replace(x, "c", "1", "", "")', {"a", "b", "c"}, []),
        ("2 * -(x)", {"a", "b"}, []),
        ("topk(3, x)", {"a", "b"}, []),
        ("time() - x and on (a) x", {"a", "b"}, []),
        ('label_join(x, "c", "", "a")', {"a", "b", "c"}, []),
        ("x or y_bucket", {"a", "b", "le"}, []),
        ("vector(1)", set(), []),
        ('{c="1"}', {"c", "job", "instance"}, []),
        ("sum by (c) (x)", {"c"}, ["sum by c, which it does not have, only a, b"]),
        ("sum without (c) (x)", {"a", "b"}, ["sum by c, which it does not have, only a, b"]),
        ('x{c="1"}', {"a", "b"}, ["x has no label c, only a, b"]),
        ("x and on (le) y_bucket", {"a", "b"}, ["and on le, which is on one side only"]),
        ("rate(z[5m])", set(), ["nobody emits z"]),
        ("histogram_quantile(0.5, x)", {"a", "b"}, ["histogram_quantile of series without le"]),
    ],
)
def test_an_expression_is_read_for_its_labels(expr: str, labels: set[str], problems: list[str]) -> None:
    """What its result may carry, and which names in it nobody has."""
    reading = read_expression(expr, KNOWN)

    assert (reading.labels, reading.problems) == (labels, problems)


def test_what_is_no_promql_is_refused() -> None:
    """It has no labels to tell of."""
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        read_expression("sum by (", KNOWN)


# -- time --


@pytest.mark.parametrize(
    ("expr", "scaled"),
    [
        ("rate(x[5m])", "rate(x[5s])"),
        ("rate(x[5m] offset 1h)", "rate(x[5s] offset 1m)"),
        ("max_over_time(x[1h:5m])", "max_over_time(x[1m:5s])"),
        ("max_over_time(x[1h:])", "max_over_time(x[1m:])"),
        ("sum_over_time(x[30d])", "sum_over_time(x[12h])"),
        ("rate(x[15s])", "rate(x[250ms])"),
        ('x{path="5m"} > 5', 'x{path="5m"} > 5'),
    ],
)
def test_windows_and_offsets_are_scaled_and_nothing_else(expr: str, scaled: str) -> None:
    """With a scale of 60 an hour is a minute; what only looks like a duration stays."""
    assert Timing(scale=60).expression(expr) == scaled
    assert Timing().expression(expr) == expr


@pytest.mark.parametrize(
    ("seconds", "text"), [(90, "90s"), (120, "2m"), (3600, "1h"), (172800, "2d"), (0.25, "250ms"), (5400, "90m")]
)
def test_seconds_are_written_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    """Prometheus takes no fractions."""
    assert as_text(seconds) == text


def test_what_is_no_duration_is_refused() -> None:
    """The sentence says how one is written."""
    with pytest.raises(ValueError, match=r"'soon' is no duration; write a number and one of ms, s, m, h, d, w\."):
        Timing().seconds("soon")


def test_faster_rules_are_the_same_but_for_time(small: Contract) -> None:
    """Windows, `for` and intervals of a test's rules are a sixtieth, and the thresholds are what they were."""
    groups = yaml.safe_load(rule_files(small, Timing(scale=60, interval=0.25))["small.gen.yml"])["groups"]

    assert [group.get("interval") for group in groups] == [None, "1s", None]
    assert groups[1]["rules"][0]["expr"] == (
        "0.25 * count by (slo, environment) (count_over_time(requests_total[12h]))"
    )
    assert groups[2]["rules"][0] | {"labels": {}, "annotations": {}} == {
        "alert": "Slow",
        "expr": "slow:ratio > 0.05 and on (environment) up offset 1m",
        "for": "5s",
        "labels": {},
        "annotations": {},
    }


# -- rendering --


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${slow_share}", "0.05"),
        ("${slow_share:percent}", "5 %"),
        ("${chat_paths}", "/chat.*"),
        ("${le:slow_seconds}", 'le="0.5"'),
        ("${seconds:1h}", "3600"),
        ("${evaluation_seconds}", "15"),
        ("${scrapes:4}", "1m"),
        ("${scrapes:3}", "45s"),
        ("{{ $value }} of ${slow_seconds} s", "{{ $value }} of 0.5 s"),
    ],
)
def test_holes_are_filled(small: Contract, text: str, filled: str) -> None:
    """Thresholds, selectors, matchers and durations; Prometheus' own templates stay."""
    assert filler(small.rules, Timing())(text) == filled


@pytest.mark.parametrize(
    ("bound", "matcher"), [(1, r'le=~"1(\\.0)?"'), (10.0, r'le=~"10(\\.0)?"'), (0.25, 'le="0.25"')]
)
def test_a_bucket_is_found_in_either_spelling(bound: float, matcher: str) -> None:
    """A whole bound is 1.0 where it was scraped and 1 where it was pushed."""
    assert le(bound) == matcher


def test_numbers_are_written_as_a_person_does() -> None:
    """No fraction where there is none."""
    assert [number(value) for value in (1.0, 14.4, 2592000.0, 0.05)] == ["1", "14.4", "2592000", "0.05"]


def test_the_rules_of_the_small_contract(small: Contract) -> None:
    """Recordings stand by how often they are evaluated, then the alerts, with all their labels and annotations."""
    chat = 'path=~"/chat.*"'
    assert yaml.safe_load(rule_files(small)["small.gen.yml"]) == {
        "groups": [
            {
                "name": "relay.small",
                "rules": [
                    {
                        "record": "slow:ratio",
                        "expr": f'1 - sum by (environment) (rate({DURATION}_bucket{{le="0.5", {chat}}}[5m]))\n'
                        f"  / sum by (environment) (rate({DURATION}_count{{{chat}}}[5m]))",
                        "labels": {"kind": "chat"},
                    }
                ],
            },
            {
                "name": "relay.small.1m",
                "interval": "1m",
                "rules": [
                    {
                        "record": "slo:observed_seconds:30d",
                        "expr": "15 * count by (slo, environment) (count_over_time(requests_total[30d]))",
                    },
                    {
                        "record": "slo:target_percent",
                        "expr": '99 + 0 * slo:observed_seconds:30d{slo="latency"}',
                        "labels": {"slo": "latency"},
                    },
                ],
            },
            {
                "name": "relay.small.alerts",
                "rules": [
                    {
                        "alert": "Slow",
                        "expr": "slow:ratio > 0.05 and on (environment) up offset 1h",
                        "for": "5m",
                        "labels": {"severity": "high", "team": "ops"},
                        "annotations": {
                            "summary": "{{ $labels.environment }} is slow",
                            "description": "{{ $value }} of the requests took longer than 0.5 s; the limit is 5 %.",
                            "runbook_url": "https://books.example/Slow.md",
                            "dashboard_url": "https://boards.example/d/board?viewPanel=3"
                            "&var-environment={{ $labels.environment | urlquery }}",
                        },
                    }
                ],
            },
        ]
    }


def test_a_part_may_serve_all_environments(tmp_path: Path) -> None:
    """Its alerts carry the environment of their series, and the part's own word where these have none."""
    contract = load(small_rules(tmp_path, "    dashboard: board\n", "    dashboard: board\n    environment: all\n"))
    groups = yaml.safe_load(rule_files(contract)["small.gen.yml"])["groups"]

    assert groups[-1]["rules"][0]["labels"] == {
        "severity": "high",
        "team": "ops",
        "environment": "{{ with $labels.environment }}{{ . }}{{ else }}all{{ end }}",
    }


def test_an_alert_may_outlast_its_cause(tmp_path: Path) -> None:
    """keep_firing_for is written as it is, and scaled as `for` is."""
    contract = load(small_rules(tmp_path, "        for: 5m\n", "        for: 5m\n        keep_firing_for: 10m\n"))

    def keeps(timing: Timing) -> str:
        groups = yaml.safe_load(rule_files(contract, timing)["small.gen.yml"])["groups"]
        return str(groups[-1]["rules"][0]["keep_firing_for"])

    assert (keeps(Timing()), keeps(Timing(scale=60))) == ("10m", "10s")


def test_targets_are_rules_of_their_own(tmp_path: Path) -> None:
    """Each environment that slos.yaml names has its target from the start, every other the default once observed."""
    slos = SLOS.replace("{default: 99}", "{default: 99, beta: 99.5, eu.west: 98}")
    contract = load(small_rules(tmp_path, slos=slos))
    targets = yaml.safe_load(rule_files(contract)["small.gen.yml"])["groups"][1]["rules"][1:]

    assert targets == [
        {
            "record": "slo:target_percent",
            "expr": "vector(99.5)",
            "labels": {"slo": "latency", "environment": "beta"},
        },
        {
            "record": "slo:target_percent",
            "expr": "vector(98)",
            "labels": {"slo": "latency", "environment": "eu.west"},
        },
        {
            "record": "slo:target_percent",
            "expr": r'99 + 0 * slo:observed_seconds:30d{slo="latency", environment!~"beta|eu\\.west"}',
            "labels": {"slo": "latency"},
        },
    ]


def test_an_alert_is_tuned_by_its_own_thresholds_and_by_those_of_what_it_reads(small: Contract) -> None:
    """For the weekly review: which numbers to change. A bucket's bound counts; texts and selectors do not."""
    assert tuned_by(small.rules) == {"Slow": ("slow_share", "slow_seconds")}


def test_kubernetes_gets_exactly_the_same_groups() -> None:
    """The PrometheusRule is of the shape that Prometheus Operator takes, and holds what Prometheus' files hold."""
    resource = yaml.safe_load((ROOT / "deploy/kubernetes/prometheusrule.gen.yaml").read_text(encoding="utf-8"))
    files = sorted((ROOT / "prometheus/rules").glob("*.gen.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]

    def by_name(group: dict[str, object]) -> str:
        return str(group["name"])

    assert sorted(resource.pop("spec")["groups"], key=by_name) == sorted(groups, key=by_name)
    assert resource == {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "relay-otel",
            "labels": {"app.kubernetes.io/name": "relay-otel"},
        },
    }


def test_the_committed_rules_are_fresh() -> None:
    """What lies in the repository is what the contract says now."""
    contract = load(ROOT / "contract")
    files = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "prometheus/rules").glob("*.gen.yml")}

    assert files == rule_files(contract)
    assert (ROOT / "deploy/kubernetes/prometheusrule.gen.yaml").read_text(encoding="utf-8") == render_kubernetes(
        contract
    )
