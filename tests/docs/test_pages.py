"""What single pages promise: a command for each line of the guide's checklist, the doctor's words, measured figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import manual, shell
from tests.docs.manual import Page
from tests.docs.snippets import Snippets
from tests.docs.test_migrate import ASK
from tools.process import ROOT

# -- checklist.md --

CHECKLIST = {
    "Week 1": [
        "Prometheus running and scraping metrics",
        "Grafana dashboards created and tested",
        "Alert rules configured and tested",
        "AlertManager routing validated",
        "Team trained on dashboards and alerts",
    ],
    "Week 2": [
        "Enable metrics in Beta environment",
        "Monitor for 7 days with reduced alerting",
        "Tune alert thresholds based on baseline",
        "Collect feedback from on-call team",
    ],
    "Week 3": [
        "Enable metrics in Production",
        "Enable all alert routing",
        "PagerDuty integration active",
        "Incident runbooks documented",
        "Team on-call rotation scheduled",
    ],
    "Week 4": [
        "Weekly alert effectiveness review",
        "Monthly cost analysis",
        "Quarterly capacity planning",
        "Incident review process",
    ],
}
"""The guide's, as it stands there: four weeks, eighteen lines."""


def lines(page: Page) -> dict[str, list[tuple[str, str]]]:
    """By week each line, a sentence in bold, and what stands below it."""
    weeks = re.split(r"(?m)^## (Week \d)[^\n]*\n", page.text)[1:]
    found = {}
    for week, text in zip(weeks[::2], weeks[1::2], strict=True):
        parts = re.split(r"(?m)^\*\*(.+?\.)\*\*", text)[1:]
        found[week] = list(zip(parts[::2], parts[1::2], strict=True))
    return found


def checklist_problems(page: Page) -> list[str]:
    """Each line of the guide has one here, in its week, and each names a command."""
    problems = []
    for week, wanted in CHECKLIST.items():
        there = lines(page).get(week, [])
        if len(there) != len(wanted):
            problems.append(f"{week} has {len(there)} lines, and the guide {len(wanted)}")
        problems += [
            f"{week}: {line} has no command"
            for line, below in there
            if "```sh\n" not in below
            and not re.search(r"`relay-otel [^`]+`", below)
            and "](operations.md#" not in below
        ]
    return problems


def test_each_line_of_the_checklist_has_its_command() -> None:
    assert checklist_problems(manual.read("docs/checklist.md")) == []


def test_a_line_without_a_command_is_found() -> None:
    text = manual.read("docs/checklist.md").text
    without = re.sub(r"(?s)(\*\*Metrics are on in beta\.\*\*).*?(\*\*Seven)", r"\1 Look.\n\n\2", text)
    less = text.replace("**All alert routing is on.**", "All alert routing is on.")

    assert checklist_problems(Page("x", without)) == ["Week 2: Metrics are on in beta. has no command"]
    assert checklist_problems(Page("x", less)) == ["Week 3 has 4 lines, and the guide 5"]


def test_inline_commands_exist() -> None:
    """What a page of docs/ names in a sentence as `relay-otel ...` is a command; its options may be missing."""
    wrong = [
        f"{name}: {command}"
        for name, page in manual.pages().items()
        if name.startswith("docs/")
        for command in re.findall(r"`(relay-otel [a-z][^`]*)`", page.prose)
        for words in shell.commands(command)
        if shell.own_problem([*(words[1:] if "--" not in words else words[1 : words.index("--")]), "--help"])
    ]

    assert wrong == []


def test_inline_commands_of_tables_exist() -> None:
    """The commands of troubleshooting.md's tables take the options that they are shown with."""
    page = manual.read("docs/troubleshooting.md")
    programs = ("amtool", "curl", "promtool", "relay-otel")
    found = [code for code in re.findall(r"`([^`]+)`", page.prose) if code.split()[0] in programs and " " in code]
    wrong = [(code, said) for code in found for words in shell.commands(code) if (said := shell.problem(words))]

    assert len(found) > 15
    assert wrong == []


# -- troubleshooting.md --


def findings() -> set[str]:
    """What the doctor calls the things it looks at."""
    text = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src/relay_otel/doctor").glob("*.py"))
    return set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', text))


def finding_problems(page: Page) -> list[str]:
    groups = ("alertmanager", "app", "clock", "collector", "costs", "packages", "prometheus", "round", "settings")
    named = set(re.findall(rf"`((?:{'|'.join(groups)}|workers)-[a-z-]+)`", page.prose))
    return [f"the doctor has no {each}" for each in sorted(named - findings())]


def test_findings_are_the_doctors() -> None:
    assert finding_problems(manual.read("docs/troubleshooting.md")) == []


def test_a_finding_that_the_doctor_has_not_is_found() -> None:
    assert finding_problems(Page("x", "| a | `app-mood` |")) == ["the doctor has no app-mood"]


def test_each_symptom_of_the_guide_is_there() -> None:
    """Its three: not scraping, not firing, no data."""
    headings = re.findall(r"(?m)^## (.*)$", manual.read("docs/troubleshooting.md").text)

    assert {"Prometheus does not scrape", "Alerts do not fire", "Grafana shows nothing"} <= set(headings)


# -- comparison.md --

NAMES = {
    "a counter by labels, ns": "{}, by labels",
    "a histogram by labels, ns": "{}, by labels",
    "a counter, bound, ns": "{}, bound",
    "a histogram, bound, ns": "{}, bound",
    "the same of four workers, ms": "{}, 4 workers",
}
"""What a candidate is called in a section of bench/results.md, where its column's name alone is not it."""
LONGER = {"OpenTelemetry": ("OpenTelemetry SDK", "OpenTelemetry SDK's Prometheus reader")}


def results() -> dict[str, dict[str, list[str]]]:
    """By section and candidate the numbers of its row."""
    found: dict[str, dict[str, list[str]]] = {}
    parts = re.split(r"(?m)^## (.*)\n", (ROOT / "bench/results.md").read_text(encoding="utf-8"))[1:]
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
        found[title] = {row[0]: [cell.split(" (")[0] for cell in row[1:]] for row in rows}
    return found


def figure_problems(page: Page) -> list[str]:
    """Each figure of the tables of costs stands in its candidate's row of its section."""
    measured = results()
    problems = []
    tables = re.findall(r"(?m)(?:^\|.*\n)+", page.text.partition("\n## By cost\n")[2])
    for table in tables:
        header, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
        for what, section, *figures in rows:
            for candidate, figure in zip(header[2:], figures, strict=True):
                names = [NAMES.get(what, "{}").format(candidate), candidate, *LONGER.get(candidate, ())]
                there = [cell for name in names for cell in measured.get(section, {}).get(name, [])]
                if figure != "-" and figure not in there:
                    problems.append(f"{what}, {candidate}: {figure} is not in {section}, which has {there}")
                if figure == "-" and measured[section].get(names[0]):
                    problems.append(f"{what}, {candidate}: - where {section} has a figure")
    return problems


def test_costs_are_the_measured_ones() -> None:
    """Figures of tables, and those of the sentences below, stand in bench/results.md."""
    page = manual.read("docs/comparison.md")
    below = page.text.partition("`import relay_otel` and")[2]
    text = (ROOT / "bench/results.md").read_text(encoding="utf-8")

    assert figure_problems(page) == []
    assert [each for each in re.findall(r"\d+\.\d+", below) if f"| {each} " not in text] == []
    assert ("NOT met" in text) == ("is missed in that file" in below)


@pytest.mark.parametrize(("right", "wrong"), [("7.7 |", "7.6 |"), ("7,526", "1,979"), ("| 262.3", "| 99.2")])
def test_a_figure_that_was_not_measured_is_found(right: str, wrong: str) -> None:
    page = manual.read("docs/comparison.md")

    assert len(figure_problems(Page("x", page.text.replace(right, wrong, 1)))) == 1


def test_the_others_are_better_at_something() -> None:
    """Rows in bold, in which somebody else has more; at least as many as would be honest."""
    rows = re.findall(r"(?m)^\| .*$", manual.read("docs/comparison.md").text.partition("## By property")[2])

    assert sum("**" in row for row in rows) >= 8


# -- what the how-to pages say that comes of it --


@pytest.mark.parametrize(
    ("page", "file", "request_", "row"),
    [
        (
            "docs/frameworks.md",
            "app.py",
            ("POST", "/api/acme/orders/pro"),
            'http_requests_total{method="POST",endpoint="/api/{tenant}/orders/{plan}",status_code="200",'
            'environment="beta"} 1.0',
        ),
        (
            "docs/frameworks.md",
            "star.py",
            ("GET", "/files/a/b.txt"),
            'http_requests_total{method="GET",endpoint="/files/{path}",status_code="200",environment="beta"} 1.0',
        ),
        ("docs/start.md", "app.py", ("POST", "/orders/pro"), 'orders_total{plan="pro",environment="beta"} 1.0'),
        (
            "docs/start.md",
            "app.py",
            ("POST", "/orders/pro"),
            'http_requests_total{method="POST",endpoint="/orders/{plan}",status_code="200",environment="beta"} 1.0',
        ),
    ],
)
def test_what_an_app_shows(
    page: str, file: str, request_: tuple[str, str], row: str, snippets: Snippets, tmp_path: Path
) -> None:
    """The line of /metrics that the page tells of."""
    (block,) = [each for each in manual.read(page).blocks if each.text.startswith(f"# {file}\n")]
    answer = tmp_path / "answer"
    said = snippets.run(block.text, tmp_path, ASK.format(requests=[request_], page=answer, path="/metrics"))

    assert said is None
    assert f"\n{row}\n" in answer.read_text()


def test_the_first_app_is_the_readmes() -> None:
    """docs/start.md goes through the README's pastes: the same app, and every command of them."""
    start, readme = manual.read("docs/start.md"), manual.read("README.md")
    section = Page("README.md", readme.text.partition("\n## Start\n")[2].partition("\n## ")[0])
    (app,) = [text for block in section.blocks for file, _, text in shell.HEREDOC.findall(block.text)]
    (told,) = [block.text for block in start.blocks if block.text.startswith("# app.py\n")]
    wanted = [words for block in section.blocks for words in shell.commands(block.text) if words[0] != "cat"]
    there = [words for block in start.blocks if block.language == "sh" for words in shell.commands(block.text)]

    assert told == f"# app.py\n{app}"
    assert [words for words in wanted if words not in there] == []
