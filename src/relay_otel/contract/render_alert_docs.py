"""A Contract in; docs/alerts.md out: the table of alerts, and the one of thresholds."""

import re

from relay_otel.contract.load import Contract
from relay_otel.contract.load_rules import Alert
from relay_otel.contract.render_rules import filler
from relay_otel.contract.timing import Timing, number

HEAD = """\
<!-- Generated from contract/rules.yaml by "make generate". Do not edit. -->
# Alerts

Each alert has a test that it fires and one that it stays quiet ([prometheus/tests](../prometheus/tests)), and a runbook
that says what to do ([runbooks](../runbooks)). Who hears of it stands in [alertmanager](../alertmanager/README.md):
`critical` pages, `high` goes to ops, `medium` to dev, `low` is logged, `none` only mutes others or feeds the dead-man's
switch.
"""
COLUMNS = """\
| alert | severity | team | after | says |
| --- | --- | --- | --- | --- |
"""
THRESHOLDS = """\
## Thresholds

The numbers alerts compare with. They stand in `contract/rules.yaml`; change one there and run `make generate`.
`relay-otel slo baseline` shows what your product does beside them. A bound in seconds is a bucket edge of the histogram
it is read from, so that "p95 over it" is exact.

| threshold | value | reason |
| --- | --- | --- |
"""


def render_alert_docs(contract: Contract) -> str:
    rules = contract.rules
    fill = filler(rules, Timing())
    parts = []
    for part in rules.parts:
        if part.alerts:
            rows = "".join(_row(alert, fill(alert.summary)) for alert in part.alerts)
            parts.append(f"## {part.title}\n\n{COLUMNS}{rows}")
    thresholds = "".join(
        f"| `{each.name}` | {number(each.value)} {each.unit} | {each.why} |\n" for each in rules.thresholds
    )
    return "\n".join([HEAD, *parts, THRESHOLDS + thresholds])


def _row(alert: Alert, summary: str) -> str:
    link = f"[{alert.name}](../runbooks/{alert.name}.md)"
    return f"| {link} | {alert.severity} | {alert.team} | {alert.hold or 'at once'} | {_readable(summary)} |\n"


def _readable(summary: str) -> str:
    """A text as it comes, with what Prometheus fills in told by its name."""
    text = re.sub(r"\{\{ with [^}]*\}\}.*?\{\{ else \}\}(.*?)\{\{ end \}\}", r"\1", summary)
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", "*n*", text)
