"""runbooks/ beside rules, inhibitions, contract and command line: nothing in them is stale."""

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay_otel import cli
from relay_otel.contract.lint_rules import series
from relay_otel.contract.load import load
from relay_otel.contract.load_rules import Alert, Rules
from relay_otel.contract.promql_labels import read_expression
from relay_otel.contract.render_rules import panel_url
from tests.runbooks import FOLDER, READ_BY_RUNBOOKS_ONLY, Runbook, known_series, read_runbooks
from tools.process import ROOT

SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Dashboard"]

CONTRACT = load(ROOT / "contract")
RULES = CONTRACT.rules
KNOWN = known_series(CONTRACT)
RUNBOOKS = read_runbooks()
ALERTS = {alert.name: alert for alert in RULES.alerts}


# -- what is expected of a runbook, each as the problems it finds --


def mutes(alertmanager: Mapping[str, Any]) -> dict[str, set[str]]:
    """By each alert: the sources that mute it, as the inhibitions of alertmanager.yml say."""

    def names(matchers: list[str]) -> set[str]:
        found = [re.fullmatch(r'\s*alertname=~?"([^"]*)"\s*', matcher) for matcher in matchers]
        return {name for match in found if match for name in match[1].split("|")}

    by: dict[str, set[str]] = {}
    for rule in alertmanager["inhibit_rules"]:
        for target in names(rule["target_matchers"]):
            by.setdefault(target, set()).update(names(rule["source_matchers"]))
    return by


MUTES = mutes(yaml.safe_load((ROOT / "alertmanager" / "alertmanager.yml").read_text()))


def headline(alert: Alert, muted_by: set[str]) -> str:
    """The line below the title, from the rule and the inhibitions."""
    hold = f"for {alert.hold}" if alert.hold else "at once"
    by = ", ".join(sorted(muted_by)) or "nothing"
    return f"Severity {alert.severity}, team {alert.team}, {hold}. Muted by {by}."


def form_problems(runbook: Runbook, alert: Alert, muted_by: set[str]) -> Iterator[str]:
    """Title, headline, sections, steps."""
    if runbook.title != f"# {alert.name}":
        yield f"its title is {runbook.title!r}"
    if runbook.headline != headline(alert, muted_by):
        yield f"it says {runbook.headline!r}, and the rule {headline(alert, muted_by)!r}"
    if list(runbook.sections) != SECTIONS:
        yield f"its sections are {', '.join(runbook.sections)}"
        return
    for title, text in runbook.sections.items():
        if not text:
            yield f"{title} is empty"
    steps = re.findall(r"(?m)^(\d+)\. ", runbook.sections["Mitigation"])
    if steps != [str(n + 1) for n in range(len(steps))] or len(steps) < 3:
        yield f"the steps of Mitigation are numbered {', '.join(steps) or 'not at all'}"


def dashboard_problems(runbook: Runbook, rules: Rules) -> Iterator[str]:
    """The link is the one that the alert carries."""
    ((part, alert),) = [(part, each) for part in rules.parts for each in part.alerts if each.name == runbook.name]
    url = panel_url(rules, part, alert)
    if f"]({url})" not in runbook.sections.get("Dashboard", ""):
        yield f"Dashboard does not link {url}"


def query_problems(runbook: Runbook) -> Iterator[str]:
    """Each query is PromQL of series and labels that exist."""
    if len(runbook.queries) < 2:
        yield f"it has {len(runbook.queries)} queries"
    for query in runbook.queries:
        try:
            problems = read_expression(query.promql, KNOWN).problems
        except ValueError as error:
            problems = [f"it is no PromQL: {error}"]
        yield from (f"{query.promql}: {problem}" for problem in problems)


def lead_problems(runbook: Runbook) -> Iterator[str]:
    """A sentence stands above each query and says what its result tells; two queries in a row may share one."""
    alone = False
    for query in runbook.queries:
        above = query.lead != "```"
        if not (query.lead.endswith((".", ":")) if above else not alone):
            yield f"{query.promql}: no sentence above says what it tells"
        alone = not above


def command_problems(runbook: Runbook, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each `relay-otel` command line is one that the real parser takes; within sentences its options may be missing."""
    found = [piece for line in runbook.commands for piece in own_commands(line)]
    for words in found:
        if not parses(words, monkeypatch):
            yield f"relay-otel {' '.join(words)} is no command"
    for command in runbook.inline_commands:
        words = shlex.split(command)[1:]
        if not parses([*words, "--help"], monkeypatch):
            yield f"{command} is no command"


def own_commands(line: str) -> list[list[str]]:
    """The words after each `relay-otel` that stands as a program in a line of shell, up to a pipe or `||`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = list(lexer)
    found = []
    for position, word in enumerate(words):
        if word == "relay-otel" and position + 1 < len(words):
            rest = words[position + 1 :]
            end = next((n for n, each in enumerate(rest) if set(each) <= set("|&;<>")), len(rest))
            found.append(rest[:end])
    return found


class Parsed(Exception):
    pass


def parses(words: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether `relay-otel`'s own parser takes them; nothing is done."""
    real = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *arguments: Any, **named: Any) -> None:
        real(self, *arguments, **named)
        raise Parsed

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        try:
            cli.main(words)
        except Parsed:
            return True
        except SystemExit as ended:
            return ended.code == 0
    raise AssertionError("relay-otel does not parse its arguments with argparse any more")


def link_problems(text: str, links: list[str], folder: Path = FOLDER) -> Iterator[str]:
    """A relative link leads to a file, and its anchor to a heading."""
    for link in links:
        file, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        target = folder / file
        if not target.exists():
            yield f"the link {link} leads nowhere"
        elif anchor and anchor not in anchors(target.read_text()):
            yield f"{file} has no heading #{anchor}"


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def readme_problems(readme: str, rules: Rules) -> Iterator[str]:
    """The tables hold each alert once, under its severity, and nothing else."""
    told: dict[str, str] = {}
    severity = ""
    for line in readme.splitlines():
        if heading := re.fullmatch(r"## (\w+)(?:: .*)?", line):
            severity = heading[1].lower()
        elif row := re.match(r"\| \[(\w+)\]\((\w+)\.md\) \| .{15,} \|$", line):
            if row[1] in told or row[1] != row[2]:
                yield f"{row[1]} stands twice, or its link is another's"
            told[row[1]] = severity
    wanted = {alert.name: alert.severity for alert in rules.alerts}
    for name in sorted(told.keys() | wanted.keys()):
        if name not in wanted:
            yield f"{name} is no alert"
        elif told.get(name) != wanted[name]:
            yield f"{name} is under {told.get(name, 'nothing')}, and is {wanted[name]}"


# -- what lies in runbooks/ --


def test_each_alert_has_a_runbook_and_no_runbook_is_left_over():
    """By name, both ways; the runbook_url of each alert leads to its file."""
    assert set(ALERTS) == set(RUNBOOKS)
    folder, _, file = RULES.runbook.rpartition("/")
    assert (folder.rpartition("/")[2], file) == (FOLDER.name, "{alert}.md")


@pytest.mark.parametrize("name", ALERTS)
def test_a_runbook_is_whole_and_true(name, monkeypatch):
    """Sections in order, numbered steps; headline and dashboard as the rule and Alertmanager have them; queries about
    series and labels that exist, each with its sentence; commands that exist; links that lead somewhere."""
    runbook = RUNBOOKS[name]

    problems = [
        *form_problems(runbook, ALERTS[name], MUTES.get(name, set())),
        *dashboard_problems(runbook, RULES),
        *query_problems(runbook),
        *lead_problems(runbook),
        *command_problems(runbook, monkeypatch),
        *link_problems(runbook.text, runbook.links),
    ]

    assert problems == []


def test_no_paragraph_is_in_two_runbooks():
    """Each is written for its alert: no meaning and no impact is copied from another."""
    seen: dict[str, str] = {}
    copied = []
    for runbook in RUNBOOKS.values():
        for title in ("Meaning", "Impact"):
            text = runbook.sections[title]
            copied += [(runbook.name, seen[text])] if text in seen else []
            seen[text] = runbook.name
    assert copied == []


def test_the_readme_lists_each_alert_under_its_severity():
    """runbooks/README.md has each alert once, with a sentence; its links lead somewhere."""
    text = (FOLDER / "README.md").read_text()

    problems = [*readme_problems(text, RULES), *link_problems(text, Runbook("README", text).links)]

    assert problems == []


def test_series_that_only_runbooks_read_are_read_and_stand_nowhere_else():
    """The table of such series has none that the contract lists, and none that no runbook asks for."""
    read = {
        name
        for runbook in RUNBOOKS.values()
        for query in runbook.queries
        for name in READ_BY_RUNBOOKS_ONLY
        if re.search(rf"\b{name}\b", query.promql)
    }

    assert (set(READ_BY_RUNBOOKS_ONLY) - read, set(READ_BY_RUNBOOKS_ONLY) & set(series(CONTRACT))) == (set(), set())


# -- negative controls: each check can fail --


SOUND = RUNBOOKS["HighErrorRate"]
ALERT = ALERTS["HighErrorRate"]


def changed(right: str, wrong: str, runbook: Runbook = SOUND) -> Runbook:
    assert right in runbook.text
    return replace(runbook, text=runbook.text.replace(right, wrong, 1))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("# HighErrorRate", "# HighErrorsRate", "its title is"),
        ("Severity critical", "Severity high", "it says"),
        ("team ops", "team dev", "it says"),
        ("for 5m", "for 15m", "it says"),
        ("ApiDown, ", "", "it says"),
        ("## Impact", "## Effect", "its sections are"),
        ("## Meaning", "## Impact", "its sections are"),
        ("\n1. ", "\n2. ", "the steps of Mitigation"),
    ],
)
def test_a_runbook_of_another_form_is_noticed(right, wrong, said):
    problems = list(form_problems(changed(right, wrong), ALERT, MUTES["HighErrorRate"]))

    assert [problem.startswith(said) for problem in problems] == [True]


def test_an_empty_section_is_noticed():
    impact = SOUND.sections["Impact"]

    problems = list(form_problems(changed(impact, ""), ALERT, MUTES["HighErrorRate"]))

    assert problems == ["Impact is empty"]


def test_an_inhibition_that_is_added_makes_the_headline_stale():
    more = {"source_matchers": ['alertname="Watchdog"'], "target_matchers": ['alertname=~"HighErrorRate|NoTraffic"']}

    muted_by = mutes({"inhibit_rules": [more]})

    assert muted_by == {"HighErrorRate": {"Watchdog"}, "NoTraffic": {"Watchdog"}}
    assert list(form_problems(SOUND, ALERT, muted_by["HighErrorRate"]))


@pytest.mark.parametrize(("right", "wrong"), [("/d/system-health", "/d/database"), ("viewPanel=6", "viewPanel=7")])
def test_another_dashboard_is_noticed(right: str, wrong: str):
    assert list(dashboard_problems(changed(right, wrong), RULES))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("http:error_ratio:5m", "http:eror_ratio:5m", "nobody emits http:eror_ratio:5m"),
        ("(environment, pool, outcome)", "(environment, pools, outcome)", "by pools"),
        ('status_code=~"5.."', 'status=~"5.."', "has no label status"),
        ("topk(5, sum", "topk(5, sum(", "it is no PromQL"),
    ],
)
def test_a_query_about_what_nobody_emits_is_noticed(right, wrong, said):
    (problem,) = query_problems(changed(right, wrong))

    assert said in problem


def test_a_query_without_its_sentence_is_noticed():
    """A title above it is no sentence, and two queries may share one, but not three."""
    bare = "```promql\nup\n```\n\n"

    assert len(list(lead_problems(Runbook("x", f"Overview\n{bare}")))) == 1
    assert len(list(lead_problems(Runbook("x", f"Above 1 it burns.\n{bare}{bare}{bare}")))) == 1
    assert list(lead_problems(Runbook("x", f"Above 1 it burns.\n{bare}{bare}"))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "relay-otel deploy begin --version rollback",
        "relay-otel deploy start --environment production",
        "docker compose exec app relay-otel llm spool empty",
        "relay-otel llm report --by user --sinse 1d | head",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(wrong, monkeypatch):
    runbook = Runbook("x", f"```sh\n{wrong}\n```\n")

    (problem,) = command_problems(runbook, monkeypatch)

    assert problem.endswith("is no command")


@pytest.mark.parametrize("wrong", ["relay-otel flusch", "relay-otel deploy begin"])
def test_a_command_in_a_sentence_that_does_not_exist_is_noticed(wrong, monkeypatch):
    (problem,) = command_problems(Runbook("x", f"Say `{wrong}` then."), monkeypatch)

    assert problem == f"{wrong} is no command"


@pytest.mark.parametrize("link", ["Nothing.md", "../docs/nothing.md", "../docs/llm.md#no-such-heading"])
def test_a_link_that_leads_nowhere_is_noticed(link):
    assert len(list(link_problems("", [link]))) == 1


def test_a_readme_that_lags_behind_the_rules_is_noticed():
    """A missing alert, one under another severity, and one that is gone."""
    text = (FOLDER / "README.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| [ApiDown]"))

    assert list(readme_problems(text.replace(f"{row}\n", ""), RULES)) == ["ApiDown is under nothing, and is critical"]
    assert len(list(readme_problems(text.replace("## Low", "## Medium"), RULES))) >= 1
    assert list(readme_problems(text.replace("ApiDown", "ApiGone"), RULES)) == [
        "ApiDown is under nothing, and is critical",
        "ApiGone is no alert",
    ]
