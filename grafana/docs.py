"""Dashboards as they lie in; docs/dashboards.md out: a picture of each, and what every panel says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grafana.targets import Board, panels, runbooks

HEAD = """\
<!-- Generated from grafana/boards by "make generate". Do not edit. -->

# Dashboards

{count} dashboards for Grafana 12 and 13, made from the contract by `make generate`; [grafana/](../grafana/README.md)
says how to have them. All numbers of one moment are asked for that moment: an app that has died shows "no data", never
its last good minute. Every alert links to the panel that shows it, with its environment chosen, and the panel to the
alert's runbook. Deployments and maintenance are marked in every chart.

The pictures are of the demo's incident, a bad release (`make pictures`). They are drawn by a renderer of our own from
the same files and the same queries, and **not by Grafana**, which looks a little different; what that leaves unproven
stands in [verification.md](verification.md).

| dashboard | the question that it answers | you choose |
| --- | --- | --- |
"""


def page(boards: Mapping[str, Board]) -> str:
    """The text of docs/dashboards.md."""
    text = HEAD.format(count=len(boards))
    for board in boards.values():
        text += f"| [{board['title']}](#{_anchor(board['title'])}) | {_question(board)} | {_choices(board)} |\n"
    return text + "".join(_section(board) for board in boards.values())


def _section(board: Board) -> str:
    rows = "".join(
        f"| {panel['title']} | {_cell(panel['description'])} | {_alerts(panel)} |\n" for panel in panels(board)
    )
    return f"""
## {board["title"]}

{_question(board)} `/d/{board["uid"]}`, from [{board["uid"]}.py](../grafana/boards/{board["uid"].replace("-", "_")}.py)

![{board["title"]}](pictures/{board["uid"]}.png)

| panel | what it says | runbooks |
| --- | --- | --- |
{rows}"""


def _question(board: Board) -> str:
    return str(board["description"]).partition("?")[0] + "?"


def _choices(board: Board) -> str:
    return ", ".join(each["label"].lower() for each in board["templating"]["list"] if each["type"] == "query")


def _alerts(panel: Mapping[str, Any]) -> str:
    return ", ".join(f"[{name}](../runbooks/{name}.md)" for name in runbooks(panel))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(each for each in title.lower() if each.isalnum() or each in " -").replace(" ", "-")
