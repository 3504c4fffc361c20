"""What `make dist` publishes: whole, of one version, and usable where nothing else is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from relay_otel._version import VERSION
from tests.packaging.conftest import Built, Environment
from tools.dist import notes
from tools.process import ROOT, StackError

LAYOUT = {"relay_otel", "relay_otel_pytest", f"relay_otel-{VERSION}.dist-info"}


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as opened:
        return opened.namelist()


def metadata(wheel: Path) -> dict[str, list[str]]:
    with zipfile.ZipFile(wheel) as opened:
        message = Parser().parsestr(opened.read(f"relay_otel-{VERSION}.dist-info/METADATA").decode())
    return {key: message.get_all(key, []) for key in dict.fromkeys(message.keys())}


def test_the_wheel_has_the_package_and_nothing_else(built: Built) -> None:
    """Every module of src/, the types' mark, the data; no tests, no tools, no caches."""
    inside = names(built.wheel)
    modules = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src").rglob("*.py")}

    assert {name.split("/")[0] for name in inside} == LAYOUT
    assert modules <= set(inside) and "relay_otel/py.typed" in inside
    assert [name for name in inside if re.search(r"__pycache__|\.pyc$|node_modules|/tests?/", name)] == []


def test_the_sdist_is_enough_to_build_from(built: Built) -> None:
    """The wheel was built from it; it has the licence, and what the wheel takes from beside src/."""
    with tarfile.open(built.sdist) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}

    assert {"LICENSE", "README.md", "pyproject.toml", "collector/config.yaml", "contract/metrics.yaml"} <= inside
    assert [name for name in inside if name.startswith(("web/", "grafana/pictures", ".venvs"))] == []


def test_one_version(built: Built) -> None:
    """The wheel, the sdist, the browsers' package and what the app says of itself are of one version."""
    import relay_otel

    package, lock = (json.loads((ROOT / "web" / file).read_text()) for file in ("package.json", "package-lock.json"))

    assert metadata(built.wheel)["Version"] == [VERSION] == [relay_otel.__version__]
    assert built.sdist.name == f"relay_otel-{VERSION}.tar.gz"
    assert (package["version"], lock["version"], lock["packages"][""]["version"]) == (VERSION,) * 3


def test_extras_are_what_their_modules_import(built: Built) -> None:
    """An extra for each part that needs more; the core needs no web framework, no database, no YAML."""
    needs = metadata(built.wheel)["Requires-Dist"]
    core = {re.split(r"[<>=!~ ;\[]", each)[0] for each in needs if "extra ==" not in each}
    extras = set(re.findall(r"extra == \"([\w-]+)\"", " ".join(needs)))

    assert not core & {"fastapi", "starlette", "sqlalchemy", "pyyaml", "alembic"}
    assert extras == set(metadata(built.wheel)["Provides-Extra"]) >= {"llm", "contract"}


PROGRAM = """\
import relay_otel
from relay_otel.llm import CostEvent

orders = relay_otel.counter("orders_total", labels=("plan",), unit="{order}", description="Orders.")
orders.add(1, {"plan": "pro"})
handle: relay_otel.Handle = relay_otel.configure(service_name="shop")
stopped: bool = handle.shutdown()
"""
SPENT = """\
import asyncio, datetime, relay_otel
from decimal import Decimal
from relay_otel.llm import CostEvent, log_cost_event

relay_otel.configure()
now = datetime.datetime.now(datetime.UTC)


async def spend():
    await log_cost_event(CostEvent(timestamp=now, user_id_hash=None, operation="chat", model="gpt-4", input_tokens=3,
                                   output_tokens=4, cost_usd=Decimal("0.25")))


asyncio.run(spend())
relay_otel.shutdown()
"""
MISUSE = 'import relay_otel\n\nrelay_otel.configure(service_name=7)\nrelay_otel.counter("x").add("one")\n'


ALONE = """\
import sys
from importlib.metadata import entry_points
import relay_otel

groups = ("opentelemetry_distro", "opentelemetry_configurator")
print([each.load().__name__ for group in groups for each in entry_points(group=group, name="relay")])
handle = relay_otel.configure()
relay_otel.counter("orders_total").add(1)
print("orders_total" in handle.endpoint.text(), handle.shutdown())
print({"starlette", "fastapi", "sqlalchemy", "yaml"} & set(sys.modules))
"""


def test_installed_alone(environment: Environment, built: Built, tmp_path: Path) -> None:
    """In an empty environment: both entry points, every module of the core, no web framework; `mypy --strict` knows
    its types and finds what is misused; a command whose extra is missing says which; with the extras it runs."""
    environment.pip("relay-otel")
    python = str(environment.python)
    said = environment.run(python, "-c", ALONE, RELAY_OTEL_EXPORT="prometheus").splitlines()
    assert [line for line in said if not line.startswith("relay-otel: ")] == [
        "['RelayDistro', 'RelayConfigurator']",
        "True True",
        "set()",
    ]
    assert environment.run("relay-otel", "flush") == "nothing is left to send.\n"
    assert "relay-otel[llm]" in environment.run("relay-otel", "llm", "report", status=2, RELAY_OTEL_LEDGER="sqlite://")

    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "misuse.py").write_text(MISUSE)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", str(tmp_path / "c")]
    checked = subprocess.run([*mypy, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    checked = subprocess.run([*mypy, "misuse.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert re.findall(r"misuse\.py:(\d): error: Argument", checked.stdout) == ["3", "4"], checked.stdout

    environment.pip("relay-otel[llm,contract]")
    ledger = {
        "OTEL_SERVICE_NAME": "shop",
        "RELAY_OTEL_LEDGER": f"sqlite:///{tmp_path / 'costs.db'}",
        "RELAY_OTEL_SPOOL_DIR": str(tmp_path),
    }
    environment.run(python, "-c", SPENT, RELAY_OTEL_EXPORT="prometheus", **ledger)
    environment.run("relay-otel", "llm", "spool", "drain", **ledger)
    assert "0.25" in environment.run("relay-otel", "llm", "report", **ledger)
    environment.run(python, "-c", "import relay_otel.contract.load, relay_otel.contract.lint_rules")


def test_release_notes_are_the_changelogs() -> None:
    """A version's own section, else what is not released yet; nothing to say is an error."""
    changelog = "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [0.2.0] - 2027-01-01\n\n- old\n"

    assert notes(changelog, "0.2.0") == "# relay-otel 0.2.0\n\n- old\n"
    assert notes(changelog, "0.3.0") == "# relay-otel 0.3.0\n\n- new\n"
    with pytest.raises(StackError, match=r"says nothing of 0\.3\.0; add"):
        notes(changelog.replace("- new\n", ""), "0.3.0")
