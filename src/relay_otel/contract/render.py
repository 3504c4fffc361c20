"""A Contract in; the text of every generated file out."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from relay_otel.contract import lock, render_collector
from relay_otel.contract.load import Contract
from relay_otel.contract.render_alert_docs import render_alert_docs
from relay_otel.contract.render_alertmanager import render_quiet, render_reduced
from relay_otel.contract.render_docs import render_docs
from relay_otel.contract.render_python import render_python
from relay_otel.contract.render_rules import render_kubernetes, rule_files
from relay_otel.contract.render_typescript import render_typescript

# name -> (what makes the text, where it goes, seen from the folder above contract/)
RENDERERS: Mapping[str, tuple[Callable[[Contract], str], str]] = {
    "python": (render_python, "src/relay_otel/instruments.py"),
    "docs": (render_docs, "docs/metrics.md"),
    "typescript": (render_typescript, "web/src/contract.gen.ts"),
    "browser_metrics": (render_collector.render_metrics, "collector/browser_metrics.gen.yaml"),
    "browser_identity": (render_collector.render_identity, "collector/browser_identity.gen.yaml"),
    "browser_points": (render_collector.render_points, "collector/browser_points.gen.yaml"),
    "browser_series": (render_collector.render_series, "collector/browser_series.gen.yaml"),
    "browser_streams": (render_collector.render_streams, "collector/browser_streams.gen.yaml"),
}

# What is made of a file that people write: its path, what makes the text of its text, where it goes. Left out in a
# project that has no such file.
DERIVED: tuple[tuple[str, Callable[[str], str], str], ...] = (
    ("alertmanager/alertmanager.yml", render_reduced, "alertmanager/alertmanager.reduced.yml"),
    ("alertmanager/alertmanager.yml", render_quiet, "alertmanager/alertmanager.quiet.yml"),
)


def targets(contract: Contract, root: Path) -> list[str]:
    """Every file that is generated, seen from the folder above contract/."""
    return [target for target, _ in _rendered(contract, root)]


def stale(contract: Contract, root: Path) -> list[str]:
    """The generated files whose text is not what the contract says now."""
    return [target for target, text in _rendered(contract, root) if _text(root / target) != text]


def generate(contract: Contract, root: Path) -> list[str]:
    """Write the files that are stale and name them; the others keep their time stamps."""
    written = stale(contract, root)
    for target, text in _rendered(contract, root):
        if target in written:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (root / target).write_text(text, encoding="utf-8")
    return written


def _rendered(contract: Contract, root: Path) -> list[tuple[str, str]]:
    derived = [
        (target, derive(text)) for source, derive, target in DERIVED if (text := _text(root / source)) is not None
    ]
    always = [(target, render(contract)) for render, target in RENDERERS.values()]
    kept = f"contract/{lock.NAME}"
    always.append((kept, lock.extended(contract, lock.read(root / kept))))
    return [*always, *(_of_rules(contract) if contract.rules.parts else ()), *derived]


def _of_rules(contract: Contract) -> Iterator[tuple[str, str]]:
    for name, text in rule_files(contract).items():
        yield f"prometheus/rules/{name}", text
    yield "deploy/kubernetes/prometheusrule.gen.yaml", render_kubernetes(contract)
    yield "docs/alerts.md", render_alert_docs(contract)


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None
