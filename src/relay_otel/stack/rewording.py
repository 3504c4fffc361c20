"""A file of ours and a user's answers in; the same file as theirs out.

Our files run as they lie, so there are no holes to fill: a few places are replaced by exact text. One that is not there
any more is an error, which tests/stack finds before a user does.
"""

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from relay_otel.stack.answers import CHANNELS, Answers, in_yaml
from relay_otel.stack.sources import StackError

HOME = "https://github.com/relay-ai/relay-otel/blob/main/"
"""Where the pages are that comments and runbooks name, and that are not copied."""
PAGE = re.compile(r"(?<![\w/.-])((?:[\w-]+/)*README\.md|docs/[\w-]+\.md)")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(#[^)]*)?\)")
BUILT_BY = "Generated from grafana/boards by make generate."
PRODUCT = "Relay AI"
"""What our dashboards call the product."""


class Place(NamedTuple):
    """Text of ours that is something else for a user; ``times`` it stands there."""

    ours: str
    theirs: str
    times: int = 1


class Cut(NamedTuple):
    """A key of YAML that is left out with all below it; the first one that stands ``after`` a line."""

    key: str
    after: str = ""


def reworded(path: str, text: str, answers: Answers) -> str:
    """
    Raises:
        StackError: a place of ours is not in the text.
    """
    for place in PLACES[path](answers) if path in PLACES else ():
        if text.count(place.ours) != place.times:
            raise StackError(f"{path} has {place.ours!r} {text.count(place.ours)} times, not {place.times}; report it.")
        text = text.replace(place.ours, place.theirs)
    for cut in CUTS[path](answers) if path in CUTS else ():
        text = _without(path, text, cut)
    if path.startswith("grafana/dashboards/"):
        return text.replace(f" - {PRODUCT}", f" - {answers.service}").replace(BUILT_BY, "Written by relay-otel.")
    if not path.endswith(".md"):
        folder = posixpath.dirname(path)
        text = PAGE.sub(lambda match: HOME + (match[1] if "/" in match[1] else posixpath.join(folder, match[1])), text)
    return text


def with_links(path: str, text: str, there: set[str]) -> str:
    """A page whose relative links lead to files that are ``there``, or to ours on the web."""

    def led(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        return match[0] if target in there else f"]({HOME}{target}{match[2] or ''})"

    return LINK.sub(led, text)


def _without(path: str, text: str, cut: Cut) -> str:
    """YAML without the lines of a key, and without the comment above it."""
    lines = text.splitlines(keepends=True)
    stripped = [line.strip() for line in lines]
    try:
        first = stripped.index(cut.key, stripped.index(cut.after) if cut.after else 0)
    except ValueError:
        raise StackError(f"{path} has no {cut.key!r} after {cut.after!r}; report it.") from None
    indent = _indent(lines[first])
    end = first + 1
    while end < len(lines) and stripped[end] and _indent(lines[end]) > indent:
        end += 1
    while stripped[first - 1].startswith("#"):
        first -= 1
    if not stripped[first - 1] and not stripped[end]:  # one blank line parts what is left
        end += 1
    return "".join(lines[:first] + lines[end:])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _compose(answers: Answers) -> Iterator[Place]:
    service = answers.service
    yield Place(
        "# The whole of it by Docker Compose, shaped as in production. `make up` starts it, waits until all is well and"
        " prints\n# where to look; deploy/compose/README.md has the variables, the networks and what to do by hand.\n",
        f"# {service} by Docker Compose, shaped as in production. deploy/compose/README.md has the variables.\n"
        '# Written by "relay-otel stack init" from relay.yaml. What is yours belongs into compose.override.yaml:\n'
        "# Docker Compose lays that over this file by itself.\n",
    )
    yield Place("#   --profile demo beside one of them       the language model that the demo app asks\n", "")
    yield Place("name: relay\n", f"name: {in_yaml(service)}\n")
    yield Place("${COMPOSE_PROJECT_NAME:-relay}-", f"${{COMPOSE_PROJECT_NAME:-{service}}}-", 2)
    yield Place("${RELAY_APP_IMAGE:-relay-chat:local}", f"${{RELAY_APP_IMAGE:-{answers.app_image}}}")
    yield Place("${OTEL_SERVICE_NAME:-relay-chat}", f"${{OTEL_SERVICE_NAME:-{service}}}")
    yield Place("${RELAY_STAGE:-production}", f"${{RELAY_STAGE:-{answers.environment}}}", 2)
    origins = json.dumps(list(answers.browser_origins))
    yield Place("${RELAY_COLLECTOR_BROWSER_ORIGINS:-[]}", f"${{RELAY_COLLECTOR_BROWSER_ORIGINS:-{origins}}}")
    yield Place("${RELAY_GRAFANA_URL:-http://localhost:3000}", f"${{RELAY_GRAFANA_URL:-{answers.dashboards_url}}}")
    yield Place(
        "${RELAY_ALERTMANAGER_URL:-http://localhost:9093}", f"${{RELAY_ALERTMANAGER_URL:-{answers.alertmanager_url}}}"
    )
    yield Place("    build: {context: ., dockerfile: deploy/images/app/Dockerfile}\n", "")
    yield Place(
        """\
      RELAY_CHAT_LLM_URL: ${RELAY_CHAT_LLM_URL:-http://provider:8100/v1}
      OPENAI_API_KEY: ${OPENAI_API_KEY:-sk-demo}
      RELAY_CHAT_LLM_TIMEOUT: ${RELAY_CHAT_LLM_TIMEOUT:-30}
      RELAY_CHAT_JOB_INTERVAL: ${RELAY_CHAT_JOB_INTERVAL:-3}
      RELAY_CHAT_JOB_HALT: ${RELAY_CHAT_JOB_HALT:-}
      RELAY_CHAT_QUERY_BOOK: ${RELAY_CHAT_QUERY_BOOK:-}
""",
        "",
    )
    yield Place("`make up` makes those that are missing.", "`relay-otel stack init` makes those that are missing.")


def _alertmanager(answers: Answers) -> Iterator[Place]:
    yield Place("after a change, `make generate`.", "after a change, `relay-otel stack init`.")
    for receiver, ours in CHANNELS.items():
        yield Place(f"channel: '{ours}'", f"channel: '{answers.slack_channels[receiver]}'")


def _environment_of(ours: str) -> Callable[[Answers], Iterator[Place]]:
    def places(answers: Answers) -> Iterator[Place]:
        yield Place(f"environment: {ours}", f"environment: {in_yaml(answers.environment)}")

    return places


def _job(answers: Answers) -> Iterator[Place]:
    yield Place("job: relay-chat", f"job: {in_yaml(answers.service)}")


def _same(*places: Place) -> Callable[[Answers], Iterator[Place]]:
    return lambda _: iter(places)


BUILT = Place('Valid on the 0.161 built by "make tools" and', "Valid on 0.161 with `interval` of 0.162, and")
PLACES: dict[str, Callable[[Answers], Iterator[Place]]] = {
    "compose.yaml": _compose,
    "alertmanager/alertmanager.yml": _alertmanager,
    "deploy/compose/targets/probe.yml": _environment_of("production"),
    "prometheus/targets/probe.yml": _environment_of("unknown"),
    "prometheus/targets/apps.yml": _job,
    "collector/config.yaml": _same(BUILT),
    "collector/secure.yaml": _same(BUILT),
    "runbooks/AlertmanagerFailedReload.md": _same(Place("`make generate`", "`relay-otel stack init`")),
    "runbooks/PrometheusBadConfig.md": _same(Place("`make generate`", "`relay-otel stack init --force`")),
    "runbooks/ErrorBudgetBurnChronic.md": _same(
        Place("`contract/slos.yaml`, run `make generate`", "`relay.yaml`, run `relay-otel stack init`")
    ),
}


def _no_demo(answers: Answers) -> Iterator[Cut]:
    yield Cut("provider:")


def _no_receivers(answers: Answers) -> Iterator[Cut]:
    if "pagerduty" not in answers.receivers:
        yield Cut("pagerduty_configs:")
    if "watchdog" not in answers.receivers:  # the receiver stays, without a way: a route leads to it
        yield Cut("webhook_configs:", after="- name: watchdog")


CUTS: dict[str, Callable[[Answers], Iterator[Cut]]] = {
    "compose.yaml": _no_demo,
    "alertmanager/alertmanager.yml": _no_receivers,
}
