"""`relay-otel stack init`: a folder in which everything runs as it lies, and which is the user's from then on."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from relay_otel.stack.compare import File, State
from relay_otel.stack.manifest import MANIFEST
from relay_otel.stack.reading import to_read
from relay_otel.stack.rewording import HOME
from tests.stack.conftest import Relay, change, texts
from tools.process import ROOT, clean_environment, tool


@pytest.mark.usefixtures("tools")
def test_everything_runs_as_it_lies(ops: Path, relay: Relay) -> None:
    """Docker Compose, the collector, Prometheus and Alertmanager each take what was written, and each was asked."""
    done = relay("stack", "check", "ops")

    assert (done.status, done.err) == (0, "")
    asked = {line.split()[1] for line in done.out.splitlines() if line.startswith("good: ")}
    assert {"promtool", "amtool", "relay-otelcol", "docker-compose"} <= asked
    assert "not checked" not in done.out


def test_what_is_written(repository: Path, relay: Relay) -> None:
    """All that runs beside an app, the user's two files first, and secrets that git ignores."""
    done = relay("stack", "init", "ops")

    assert done.out.splitlines()[:3] == [
        "wrote ops/relay.yaml: what is yours; change it, then run this again",
        "wrote ops/metrics.yaml: for metrics of your own",
        "made 5 secrets in ops/deploy/compose/secrets, which git ignores",
    ]
    found = texts(repository / "ops")
    folders = {path.split("/")[0] for path in found}
    assert folders == {
        *("relay.yaml", "metrics.yaml", "RELAY.md", "compose.yaml", MANIFEST, ".gitignore"),
        *("collector", "prometheus", "alertmanager", "grafana", "runbooks", "deploy"),
    }
    assert not [path for path in found if path.endswith((".draft", ".new", ".png"))]
    for named in ("secrets/collector.key", "alertmanager/secrets/slack_url"):  # as docs/security.md says, and ours
        (repository / "ops" / named).parent.mkdir(exist_ok=True)
        (repository / "ops" / named).touch()
    subprocess.run(["git", "init", "--quiet", "."], cwd=repository, check=True)
    words = [
        "git",
        "check-ignore",
        "ops/secrets/collector.key",
        "ops/alertmanager/secrets/slack_url",
        "ops/compose.yaml",
    ]
    ignored = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert ignored.splitlines() == words[2:4]  # and compose.yaml is not
    shown = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout
    assert "secrets/.gitignore" in shown
    assert not [name for name in ("database_url", "collector.key", "slack_url") if name in shown]


def test_the_service_is_theirs(repository: Path, relay: Relay) -> None:
    """Service, environment and origins stand where they belong, and the demo is nowhere."""
    words = ["--service", "till", "--environment", "live", "--origin", "https://till.example"]
    assert relay("stack", "init", "ops", *words).status == 0

    done = subprocess.run(
        [str(tool("docker-compose")), "--profile", "full", "config", "--format", "json"],
        cwd=repository / "ops", env=clean_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    services = json.loads(done.stdout)["services"]
    assert json.loads(done.stdout)["name"] == "till"
    assert services["app"]["image"] == "till:local" and "build" not in services["app"]
    assert services["app"]["environment"]["OTEL_SERVICE_NAME"] == "till"
    assert services["app"]["environment"]["RELAY_STAGE"] == "live"
    assert services["collector"]["environment"]["RELAY_STAGE"] == "live"
    assert json.loads(services["collector"]["environment"]["RELAY_COLLECTOR_BROWSER_ORIGINS"]) == [
        "https://till.example"
    ]
    ops = repository / "ops"
    for probes in ("prometheus/targets/probe.yml", "deploy/compose/targets/probe.yml"):
        assert [each["labels"]["environment"] for each in yaml.safe_load((ops / probes).read_text())] == ["live"]
    demo = re.compile(r"relay[-_]chat|OPENAI_|provider:8100|`make |\"make |Relay AI")
    assert [f"{path}: {match[0]}" for path, text in texts(ops).items() for match in demo.finditer(text)] == []
    assert demo.search((ROOT / "compose.yaml").read_text())  # the search can find something


def test_names_that_yaml_takes_for_something_else(repository: Path, relay: Relay) -> None:
    """A service called on, environments called 2024 and null: texts everywhere, as any other."""
    done = relay("stack", "init", "ops", "--service", "on", "--environment", "2024", "--environment", "null")

    assert (done.status, done.err) == (0, "")
    ops = repository / "ops"
    assert yaml.safe_load((ops / "compose.yaml").read_text())["name"] == "on"
    probes = yaml.safe_load((ops / "prometheus/targets/probe.yml").read_text())
    assert [each["labels"]["environment"] for each in probes] == ["2024"]
    assert relay("stack", "init", "ops").out == "ops is as it should be\n"


def test_a_draft_is_not_left_behind(repository: Path, relay: Relay) -> None:
    """Where a file cannot be written, what was begun of it is taken away."""
    (repository / "ops/compose.yaml").mkdir(parents=True)  # a folder cannot be replaced by a file
    done = relay("stack", "init", "ops")

    assert (done.status, done.err.count("\n")) == (1, 1) and "Is a directory" in done.err
    assert [] == [path for path in texts(repository / "ops") if path.endswith(".draft")]


def test_targets_reach_the_rules(ops: Path, relay: Relay) -> None:
    """A promise in relay.yaml is in Prometheus' rules, environment by environment, and promtool takes them."""
    change(ops / "relay.yaml", "production: {availability: 99.9, latency: 99}", "production: {availability: 99.95}")
    change(ops / "relay.yaml", "beta: {availability: 99.5, latency: 99}", "staging: {availability: 97.5, latency: 95}")
    assert relay("stack", "init", "ops").status == 0

    groups = yaml.safe_load((ops / "prometheus/rules/slo.gen.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"] if rule.get("record") == "slo:target_percent"]
    promised = {(rule["labels"]["slo"], rule["labels"].get("environment", "")): rule["expr"] for rule in rules}
    assert {key: expr for key, expr in promised.items() if key[1]} == {
        ("availability", "production"): "vector(99.95)",
        ("availability", "staging"): "vector(97.5)",
        ("latency", "staging"): "vector(95)",
    }
    assert promised["availability", ""].startswith("99.9 + 0 * ")
    assert "| availability | `staging` | 97.5 % |" in (ops / "RELAY.md").read_text()
    words = [str(tool("promtool")), "check", "rules", "--lint=all", "--lint-fatal", "prometheus/rules/slo.gen.yml"]
    assert subprocess.run(words, cwd=ops, capture_output=True, check=False).returncode == 0


def test_messages_lead_to_them(ops: Path, relay: Relay) -> None:
    """Links of alerts go to their Grafana and their runbooks, in rules and on dashboards; channels are theirs."""
    change(ops / "relay.yaml", "dashboards_url: http://localhost:3000", "dashboards_url: https://graphs.example/g")
    change(ops / "relay.yaml", "# runbooks_url: https://git.example/", "runbooks_url: https://git.example/")
    change(ops / "relay.yaml", "# slack_channels: {", 'slack_channels: {critical: "#shop-down"} #')
    assert relay("stack", "init", "ops").status == 0

    rules = (ops / "prometheus/rules/http.gen.yml").read_text()
    boards = texts(ops / "grafana/dashboards")
    assert "https://git.example/shop/blob/main/ops/runbooks/ApiDown.md" in rules
    assert "https://graphs.example/g/d/system-health?" in rules
    assert "localhost:3000" not in rules and f"{HOME}runbooks" not in rules + "".join(boards.values())
    assert any("https://git.example/shop/blob/main/ops/runbooks/" in text for text in boards.values())
    for name in ("alertmanager.yml", "alertmanager.reduced.yml"):
        text = (ops / "alertmanager" / name).read_text()
        assert "#shop-down" in text and "#critical-alerts" not in text and "#ops-alerts" in text


@pytest.mark.usefixtures("tools")
def test_without_pagerduty_and_watchdog(ops: Path, relay: Relay) -> None:
    """Receivers that nobody has are left out, and Alertmanager takes what is left."""
    change(ops / "relay.yaml", "receivers: [slack, pagerduty, watchdog]", "receivers: [slack]")
    assert relay("stack", "init", "ops").status == 0

    receivers = yaml.safe_load((ops / "alertmanager/alertmanager.yml").read_text())["receivers"]
    ours = yaml.safe_load((ROOT / "alertmanager/alertmanager.yml").read_text())["receivers"]
    assert {each["name"]: set(each) - {"name"} for each in receivers} == {
        each["name"]: set(each)
        - {"name", "pagerduty_configs"}
        - ({"webhook_configs"} if each["name"] == "watchdog" else set())
        for each in ours
    }
    assert relay("stack", "check", "ops").status == 0


def test_links_of_pages_lead_somewhere(shop: Path) -> None:
    """A page's link is a file of the folder, or a page of ours that exists."""
    links = [
        (path, link)
        for path, text in texts(shop).items()
        if path.endswith(".md")
        for link in re.findall(r"\]\(([^)#]+)", text)
    ]
    lost = [
        (path, link)
        for path, link in links
        if not (
            (ROOT / link.removeprefix(HOME)).exists()
            if link.startswith(HOME)
            else link.startswith("http") or (shop / Path(path).parent / link).exists()
        )
    ]
    assert len(links) > 50
    assert lost == []


def test_a_second_time_changes_nothing(ops: Path, relay: Relay) -> None:
    """What is as it should be is left as it is, secrets too."""
    before = texts(ops)
    assert relay("stack", "init", "ops") == (0, "ops is as it should be\n", "")
    assert texts(ops) == before
    assert relay("stack", "diff", "ops") == (0, "", "")


def test_what_runs_is_told_to_read_it(repository: Path, relay: Relay) -> None:
    """Not at the first time, when nothing runs; changed rules are read on SIGHUP, by services that compose.yaml has."""
    assert "docker compose" not in relay("stack", "init", "ops").out
    change(repository / "ops/relay.yaml", "production: {availability: 99.9,", "production: {availability: 99.95,")
    lines = [line for line in relay("stack", "init", "ops").out.splitlines() if "docker compose" in line]

    assert lines == [
        "Prometheus and Alertmanager, where they run, read it after: docker compose --file ops/compose.yaml "
        "kill --signal HUP prometheus alertmanager (in the profile local: prometheus-local alertmanager-local)"
    ]
    services = yaml.safe_load((repository / "ops/compose.yaml").read_text())["services"]
    assert set(re.findall(r"(?:prometheus|alertmanager)(?:-local)?(?=[ )])", lines[0])) <= set(services)
    assert {"collector", "collector-local"} <= set(services)


@pytest.mark.parametrize(
    ("path", "state", "force", "words"),
    [
        ("prometheus/rules/http.gen.yml", "changed", False, ["kill"]),
        ("prometheus/rules/old.gen.yml", "gone", False, ["kill"]),
        ("alertmanager/templates/slack.tmpl", "new", False, ["kill"]),
        ("collector/config.yaml", "changed", False, ["restart"]),
        ("collector/config.yaml", "edited", True, ["restart"]),
        ("collector/config.yaml", "edited", False, []),
        ("collector/config.yaml", "both", False, []),  # ours is beside it
        ("collector/config.yaml", "same", True, []),
        ("collector/README.md", "changed", False, []),
        ("prometheus/targets/apps.yml", "changed", False, []),  # read on change
        ("prometheus/blackbox.yml", "changed", False, []),  # the probe's
        ("grafana/dashboards/own.gen.json", "changed", False, []),
    ],
)
def test_which_files_who_reads(path: str, state: State, force: bool, words: list[str]) -> None:
    """A file that was put in place is read on SIGHUP, at a restart, or by itself."""
    lines = list(to_read(Path("ops"), [File(path, state, "old", None if state == "gone" else "new")], force))
    assert [re.findall(r"compose\.yaml (\w+)", line) for line in lines] == [[each] for each in words]


def test_an_edited_file_is_kept_and_shown(ops: Path, relay: Relay) -> None:
    """The user's edit survives `stack init`, and `stack diff` shows it as theirs."""
    change(ops / "compose.yaml", 'cpus: "2.0"', 'cpus: "3.5"')
    edited = (ops / "compose.yaml").read_text()

    assert relay("stack", "init", "ops").out == "kept ops/compose.yaml, which you edited\n"
    assert (ops / "compose.yaml").read_text() == edited
    assert not (ops / "compose.yaml.new").exists()  # there is nothing new
    shown = relay("stack", "diff", "ops")
    assert shown.status == 0
    assert shown.out.splitlines()[0] == "# compose.yaml: edited by you, and kept"
    assert [line for line in shown.out.splitlines() if re.match(r"[+-] ", line)] == [
        '-    deploy: {resources: {limits: {cpus: "2.0", memory: 1G, pids: 256}}}',
        '+    deploy: {resources: {limits: {cpus: "3.5", memory: 1G, pids: 256}}}',
    ]


def test_answers_that_touch_an_edited_file(ops: Path, relay: Relay) -> None:
    """What relay.yaml would change in an edited file goes beside it; --force puts it in place, and theirs beside."""
    change(ops / "compose.yaml", 'cpus: "2.0"', 'cpus: "3.5"')
    edited = (ops / "compose.yaml").read_text()
    change(ops / "relay.yaml", "service: shop ", "service: till ")

    done = relay("stack", "init", "ops")
    assert "kept ops/compose.yaml, which you edited; what relay-otel has now is in ops/compose.yaml.new\n" in done.out
    assert (ops / "compose.yaml").read_text() == edited
    assert "name: till\n" in (ops / "compose.yaml.new").read_text()

    done = relay("stack", "init", "ops", "--force")
    assert "replaced ops/compose.yaml; yours is in ops/compose.yaml.yours\n" in done.out
    assert (ops / "compose.yaml.yours").read_text() == edited
    assert (ops / "compose.yaml").read_text() == (ops / "compose.yaml.new").read_text()


def test_a_file_that_was_there_is_not_ours(repository: Path, relay: Relay) -> None:
    """A compose.yaml from before us is never overwritten, not even the first time."""
    (repository / "compose.yaml").write_text("services: {}\n")
    done = relay("stack", "init")

    assert "kept compose.yaml, which was there before; what relay-otel has is in compose.yaml.new\n" in done.out
    assert (repository / "compose.yaml").read_text() == "services: {}\n"
    assert "name: shop" in (repository / "compose.yaml.new").read_text()


def test_a_removed_file_stays_removed(ops: Path, relay: Relay) -> None:
    """Who keeps no traces takes the data source out, and an upgrade does not bring it back; --force does."""
    traces = ops / "grafana/provisioning/datasources/traces.yml"
    traces.unlink()

    assert relay("stack", "init", "ops").out == f"left out {traces.relative_to(ops.parent)}, which you removed\n"
    assert not traces.exists()
    assert "traces.yml: removed by you, and left out" in relay("stack", "diff", "ops").out
    relay("stack", "init", "ops", "--force")
    assert traces.exists()


def test_routes_of_a_soft_launch_are_made_of_their_routes(ops: Path, relay: Relay) -> None:
    """An edit of alertmanager.yml reaches alertmanager.reduced.yml; routes with nothing to make it of leave it out."""
    change(ops / "alertmanager/alertmanager.yml", "repeat_interval: 12h", "repeat_interval: 6h")
    assert "changed ops/alertmanager/alertmanager.reduced.yml\n" in relay("stack", "init", "ops").out
    assert "repeat_interval: 6h" in (ops / "alertmanager/alertmanager.reduced.yml").read_text()

    (ops / "alertmanager/alertmanager.yml").write_text("route: {receiver: me}\nreceivers: [{name: me}]\n")
    assert "removed ops/alertmanager/alertmanager.reduced.yml" in relay("stack", "init", "ops").out


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "service: shop ",
            "service: Shop ",
            "service of the file is 'Shop'; begin with a letter; write lower-case",
        ),
        (
            "service: shop ",
            "servise: shop ",
            "the file has the unknown key 'servise'; known are service, environments,",
        ),
        (
            "availability: 99.9,",
            "availability: 100,",
            "availability: the target 100 for production is no percentage below",
        ),
        (
            "availability: 99.9,",
            "availability: most,",
            "availability of production of environments of the file is 'most'",
        ),
        ("availability: 99.9,", "uptime: 99.9,", "has the unknown key 'uptime'; known are availability and latency"),
        ("  production:", "  default:", "put the one that compose.yaml runs first; default stands for all others"),
        ("  production:", "  my prod:", "environments of the file is 'my prod'; write letters, digits"),
        ("browser_origins: []", "browser_origins: [shop.example]", "is 'shop.example'; write scheme and host only"),
        ("browser_origins: []", "browser_origins: ['https://a.b/c']", "is 'https://a.b/c'; write scheme and host only"),
        ("[slack, pagerduty, watchdog]", "[slack, sms]", "'sms'; choose from slack, pagerduty, watchdog"),
        ("[slack, pagerduty, watchdog]", "[pagerduty]", "leave slack in: three receivers have nothing else"),
        ("dashboards_url: http:", "dashboards_url: ftp:", "write an address, such as http://localhost:3000"),
        ("# runbooks_url: https", "runbooks_url: https://x/ # https", "write the address with {alert} where the name"),
        (
            "# app_image: shop:local",
            'app_image: "x}\\n    privileged: true"',
            "write an image, such as registry.example",
        ),
        (
            "# runbooks_url: https",
            "runbooks_url: 'https://x/{alert}\"' # https",
            "write the address with {alert} where",
        ),
        ("dashboards_url: http://localhost:3000", 'dashboards_url: "http://h/\\nx"', "write an address, such as"),
        ("# python: ../shop/", "python: /srv/shop/", "write a path seen from relay.yaml, such as ../shop/metrics.py"),
        ("# slack_channels: {default: ", "slack_channels: {sales: ", "has the unknown key 'sales'"),
    ],
)
def test_a_wrong_answer_is_one_sentence(ops: Path, relay: Relay, old: str, new: str, sentence: str) -> None:
    """A mistake in relay.yaml is said with file, key, value and repair, and nothing is written."""
    before = texts(ops)
    change(ops / "relay.yaml", old, new)
    done = relay("stack", "init", "ops")

    assert done.status == 1
    assert sentence in done.err and done.err.count("\n") == 1
    assert {**texts(ops), "relay.yaml": ""} == {**before, "relay.yaml": ""}


def test_words_that_cannot_be_used(ops: Path, relay: Relay) -> None:
    """What a new relay.yaml would be made of is refused where there is one, and a file is no folder."""
    done = relay("stack", "init", "ops", "--service", "till")
    assert (done.status, done.err) == (
        2,
        "relay-otel: ops/relay.yaml is there already, and --service is for a new one; change it in the file, "
        "then run: relay-otel stack init ops\n",
    )
    assert relay("stack", "init", "ops/relay.yaml").err == "relay-otel: ops/relay.yaml is a file; name a folder.\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--service", "My Shop"], "service of the file is 'My Shop'; begin with a letter; write lower-case letters,"),
        (["--environment", "on call"], "environments of the file is 'on call'; write letters, digits"),
        (["--origin", "shop.example"], "browser_origins of the file is 'shop.example'; write scheme and host only"),
    ],
)
def test_a_first_answer_that_cannot_be_used(repository: Path, relay: Relay, words: list[str], sentence: str) -> None:
    """It is refused before anything is written, so that the next try is a first one again."""
    done = relay("stack", "init", "ops", *words)

    assert done.status == 1 and sentence in done.err
    assert not (repository / "ops").exists()


@pytest.mark.parametrize(
    "words", [("stack", "diff"), ("stack", "check"), ("contract", "lint"), ("contract", "generate")]
)
def test_without_a_stack(repository: Path, relay: Relay, words: tuple[str, str]) -> None:
    """Where there is no relay.yaml, the command that makes one is named."""
    done = relay(*words)
    assert (done.status, done.err) == (1, "relay-otel: relay.yaml is not there; run: relay-otel stack init .\n")


def test_the_first_words_may_be_pasted_again(repository: Path, relay: Relay) -> None:
    """What relay.yaml says already is no contradiction."""
    words = ("stack", "init", "ops", "--service", "till", "--environment", "beta")

    assert [relay(*words).status, relay(*words).out] == [0, "ops is as it should be\n"]


def test_a_stack_that_is_below_is_named(ops: Path, relay: Relay) -> None:
    """Who forgets the folder is not told to make a second stack."""
    done = relay("stack", "diff")
    assert (done.status, done.err) == (1, "relay-otel: relay.yaml is not there; name its folder, ops\n")


def test_a_manifest_that_cannot_be_read(ops: Path, relay: Relay) -> None:
    """Without knowing whose a file is, none is touched."""
    (ops / MANIFEST).write_text("<<<<<<< HEAD\n")
    done = relay("stack", "init", "ops")
    assert done.status == 1
    assert done.err.startswith("relay-otel: ops/.relay-stack.json cannot be read; put its last committed version back,")
