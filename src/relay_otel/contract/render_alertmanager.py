"""alertmanager.yml in; the same configuration with the routes of a soft launch out, or with nobody to tell.

While thresholds are tuned only two things may wake somebody: users get no answer, or the error budget burns. All other
alerts go to the developers' channel. Sources and Watchdog stay where they are, as do receivers and inhibitions.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from relay_otel.contract.as_yaml import as_yaml
from relay_otel.contract.fields import ContractError

URGENT = "ApiDown|ErrorBudgetBurn.+"
"""A pattern of the names of alerts that keep their routes."""
DEVELOPERS = "dev-team"

HEAD = """\
# Generated from alertmanager/alertmanager.yml by "make generate". Do not edit.
# The routes of a soft launch: all alerts but ApiDown and ErrorBudgetBurn* go to dev-team; the rest is the same, and its
# reasons stand there. Use it while thresholds are tuned (RELAY_ALERTS=reduced in README.md).
# amlint: disable-file=wait-exceeds-interval,inhibit-no-equal

"""


def render_reduced(text: str) -> str:
    """The text of alertmanager.reduced.yml.

    Raises:
        ContractError: there is no route to dev-team whose intervals could be taken.
    """
    config = yaml.safe_load(text)
    routes = config["route"]["routes"]
    developers = next((route for route in routes if route["receiver"] == DEVELOPERS), None)
    if developers is None:
        raise ContractError(f"alertmanager.yml has no route to {DEVELOPERS}; add one, its intervals are needed.")
    # Sources and Watchdog are the routes that name alerts; they stand first.
    first = next(at for at, route in enumerate(routes) if not _names_alerts(route))
    # The matcher on severity leaves sources of the user's own where they are.
    reduced = {**developers, "matchers": [f'alertname!~"{URGENT}"', 'severity!="none"']}
    config["route"]["routes"] = [*routes[:first], reduced, *routes[first:]]
    return HEAD + as_yaml(config)


QUIET = """\
# Generated from alertmanager/alertmanager.yml by "make generate". Do not edit.
# Nobody is told: alerts are grouped, routed and muted as there, and seen in Alertmanager itself. For a laptop, which
# has no secrets of Slack and PagerDuty (the profile local of compose.yaml).
# amlint: disable-file=wait-exceeds-interval,inhibit-no-equal

"""


def render_quiet(text: str) -> str:
    """The text of alertmanager.quiet.yml: receivers by name, without a way to anybody."""
    config = yaml.safe_load(text)
    config["global"] = {name: value for name, value in config["global"].items() if name == "resolve_timeout"}
    config["receivers"] = [{"name": receiver["name"]} for receiver in config["receivers"]]
    return QUIET + as_yaml(config)


def _names_alerts(route: Mapping[str, Any]) -> bool:
    return any(matcher.startswith("alertname") for matcher in route["matchers"])
