"""deploy/kubernetes rendered by kustomize: every object by its schema, and all of them against each other."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tools.process import HOST, ROOT, Process, answers, await_, clean_environment, free_port, tool
from tools.stack import Collector, PrometheusApi

FOLDER = ROOT / "deploy/kubernetes"
VERSIONS = ("1.34", "1.37")  # the oldest that upstream still repairs, and the newest whose schemas we have
ROLES = ("agent", "gateway", "flags")
Object = dict[str, Any]


def kustomize(folder: Path) -> list[Object]:
    words = [str(tool("kustomize")), "build", str(folder)]
    built = subprocess.run(words, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return [each for each in yaml.load_all(built.stdout, yaml.CSafeLoader) if each]


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return kustomize(FOLDER)


def find(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (each for each in objects if each["kind"] == kind and re.fullmatch(name, each["metadata"]["name"]))
    return found


def pods(objects: list[Object]) -> dict[str, Object]:
    """The pod templates by what makes them."""
    kinds = ("Deployment", "DaemonSet")
    return {each["metadata"]["name"]: each["spec"]["template"] for each in objects if each["kind"] in kinds}


def collector(objects: list[Object], role: str) -> Object:
    (container,) = pods(objects)[f"relay-otel-{role}"]["spec"]["containers"]
    return dict(container)


def variables(container: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container["env"]}


# -- by their schemas --


@functools.cache
def custom_schema(kind: str) -> Object:
    """What the operator's CRD says, closed: a field that it does not name is an error, as it is with `kubectl
    --validate=strict`. The server itself would drop it without a word."""
    # The loader in C: these files are long.
    crd = yaml.load(tool(f"monitoring.coreos.com_{kind.lower()}s.yaml").read_text(), yaml.CSafeLoader)
    (version,) = (each for each in crd["spec"]["versions"] if each["storage"])
    schema = version["schema"]["openAPIV3Schema"]

    def close(node: object) -> None:
        if isinstance(node, dict):
            if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
                node["additionalProperties"] = False
            if node.pop("x-kubernetes-int-or-string", None):
                node["anyOf"] = [{"type": "integer"}, {"type": "string"}]
            for each in node.values():
                close(each)
        elif isinstance(node, list):
            for each in node:
                close(each)

    close(schema)
    # Of these two the CRD says only that they are objects.
    schema["properties"]["metadata"] = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "labels": {"additionalProperties": {"type": "string"}},
        },
        "additionalProperties": False,
    }
    return dict(schema)


def check(thing: Object) -> None:
    """Raises a ValidationError for a field that is unknown, missing or of another type."""
    if thing["apiVersion"].startswith("monitoring.coreos.com/"):
        jsonschema.Draft7Validator(custom_schema(thing["kind"])).validate(thing)
        return
    for version in VERSIONS:
        kubernetes_validate.validate(thing, version, strict=True)


def test_every_object_is_valid(objects: list[Object]) -> None:
    """Core kinds by the schemas of two Kubernetes versions, the operator's by its CRDs, unknown fields refused."""
    assert {each["kind"] for each in objects} == {
        "ConfigMap",
        "DaemonSet",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "ServiceMonitor",
    }
    for each in objects:
        check(each)


def misspelt(thing: Object) -> None:
    thing["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}


def wrong_type(thing: Object) -> None:
    thing["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "http"


def misspelt_monitor(thing: Object) -> None:
    thing["spec"]["endpoints"][0]["honourLabels"] = True


def wrong_type_monitor(thing: Object) -> None:
    thing["spec"]["endpoints"][0]["honorLabels"] = "yes"


def misspelt_rule(thing: Object) -> None:
    thing["spec"]["groups"][0]["rules"][0]["expression"] = "1"


@pytest.mark.parametrize(
    ("kind", "name", "spoil"),
    [
        ("Deployment", "relay-chat", misspelt),
        ("DaemonSet", "relay-otel-agent", wrong_type),
        ("ServiceMonitor", "relay-otel-apps", misspelt_monitor),
        ("ServiceMonitor", "relay-otel-apps", wrong_type_monitor),
        ("PrometheusRule", "relay-otel", misspelt_rule),
    ],
)
def test_a_mistake_is_found(objects: list[Object], kind: str, name: str, spoil: Callable[[Object], None]) -> None:
    """The check above can fail: a misspelt field and a wrong type are refused in core kinds and in the operator's."""
    thing = copy.deepcopy(find(objects, kind, name))
    check(thing)
    spoil(thing)

    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(thing)


def test_no_object_names_a_namespace(objects: list[Object]) -> None:
    """Where it runs is the overlay's choice."""
    assert [each["metadata"]["name"] for each in objects if "namespace" in each["metadata"]] == []


# -- against each other --


def selected(objects: list[Object], labels: Mapping[str, str]) -> list[str]:
    assert labels, "an empty selector takes every pod"
    return [name for name, pod in pods(objects).items() if labels.items() <= pod["metadata"]["labels"].items()]


def ports_of(pod: Object) -> set[str]:
    return {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}


def test_each_selector_takes_the_pods_it_means(objects: list[Object]) -> None:
    """Services, budgets and policies take one set of pods each, and name only ports that those pods have."""
    taken = {}
    for each in objects:
        if each["kind"] == "Service":
            labels, ports = each["spec"]["selector"], [port["targetPort"] for port in each["spec"]["ports"]]
        elif each["kind"] == "NetworkPolicy":
            labels = each["spec"]["podSelector"]["matchLabels"]
            ports = [port["port"] for rule in each["spec"]["ingress"] for port in rule["ports"]]
        elif each["kind"] == "PodDisruptionBudget":
            labels, ports = each["spec"]["selector"]["matchLabels"], []
        else:
            continue
        (name,) = selected(objects, labels)
        taken[f"{each['kind']} {each['metadata']['name']}"] = name
        assert set(ports) <= ports_of(pods(objects)[name])
    assert taken == {
        "Service relay-chat": "relay-chat",
        "PodDisruptionBudget relay-chat": "relay-chat",
        "PodDisruptionBudget relay-otel-gateway": "relay-otel-gateway",
        **{f"Service relay-otel-{role}": f"relay-otel-{role}" for role in ROLES},
        **{f"Service relay-otel-{role}-metrics": f"relay-otel-{role}" for role in ROLES},
        **{f"NetworkPolicy relay-otel-{role}": f"relay-otel-{role}" for role in ROLES},
    }
    for each in objects:
        if each["kind"] in ("Deployment", "DaemonSet"):
            assert selected(objects, each["spec"]["selector"]["matchLabels"]) == [each["metadata"]["name"]]


def reachable(objects: list[Object], sender: Mapping[str, str], namespace: str, role: str) -> set[int]:
    """The ports of a collector that a pod with these labels may open."""
    policy = find(objects, "NetworkPolicy", f"relay-otel-{role}")
    numbers = {port["name"]: port["containerPort"] for port in collector(objects, role)["ports"]}
    found = set()
    for rule in policy["spec"]["ingress"]:
        for peer in rule["from"]:
            near = "namespaceSelector" in peer or namespace == "ours"
            if near and peer["podSelector"]["matchLabels"].items() <= sender.items():
                found |= {numbers[port["port"]] for port in rule["ports"]}
    return found


def test_who_may_reach_what(objects: list[Object]) -> None:
    """Apps send, Prometheus reads, neither does the other's; who deploys reaches the flags; nobody else reaches any.
    The collectors open no connection."""
    app = pods(objects)["relay-chat"]["metadata"]["labels"]
    prometheus = {"app.kubernetes.io/name": "prometheus"}

    def seen(sender: Mapping[str, str], namespace: str = "ours") -> dict[str, set[int]]:
        return {role: reachable(objects, sender, namespace, role) for role in ROLES}

    assert seen(app) == {"agent": {4317, 4318}, "gateway": {4319}, "flags": set()}
    assert seen(prometheus, "monitoring") == {"agent": {8889, 8888}, "gateway": {8890, 8888}, "flags": {8891, 8888}}
    assert seen({"relay-otel/deploys": "true"}) == {"agent": set(), "gateway": set(), "flags": {4318}}
    nobody = {role: set[int]() for role in ROLES}
    assert seen(app, "another") == nobody == seen({"app": "stranger"})
    for role in ROLES:
        policy = find(objects, "NetworkPolicy", f"relay-otel-{role}")["spec"]
        assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])


def test_each_container_has_no_more_rights_than_it_needs(objects: list[Object]) -> None:
    """No root, no writable image, no capability, no token of the API, a limit of memory; Go knows of the limit."""
    for name, pod in pods(objects).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["livenessProbe"] and container["readinessProbe"] and container["startupProbe"]
        limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
        if container["name"] == "collector":
            assert 0.79 < int(variables(container)["GOMEMLIMIT"].removesuffix("MiB")) / limit < 0.81
        assert not any("hostPort" in port for port in container["ports"])


# -- the collectors --


def test_the_config_map_holds_the_collector_folder(objects: list[Object]) -> None:
    """config.yaml and every file that it includes, as they lie in collector/."""
    held = find(objects, "ConfigMap", "relay-otel-collector-.*")["data"]
    included = re.findall(r"\$\{file:collector/([^}]+)\}", held["config.yaml"])

    assert held == {name: (ROOT / "collector" / name).read_text() for name in ["config.yaml", *included]}


def validate(objects: list[Object], role: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The collector's own validation in the layout that a pod of this role has: mounts, working folder, arguments."""
    container = collector(objects, role)
    (mount,) = container["volumeMounts"]
    (volume,) = pods(objects)[f"relay-otel-{role}"]["spec"]["volumes"]
    assert (mount["name"], container["workingDir"]) == (volume["name"], "/")
    mounted = folder / mount["mountPath"].lstrip("/")
    mounted.mkdir()
    for name, text in find(objects, "ConfigMap", re.escape(volume["configMap"]["name"]))["data"].items():
        (mounted / name).write_text(text)
    words = [str(tool("relay-otelcol")), "validate", *container["args"]]
    environment = clean_environment(**variables(container))
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("role", ROLES)
def test_each_collector_takes_its_configuration(objects: list[Object], role: str, tmp_path: Path) -> None:
    """`validate` says nothing in the layout that the pod has."""
    said = validate(objects, role, tmp_path)
    assert (said.returncode, said.stderr) == (0, "")


def test_a_file_that_is_not_mounted_is_found(objects: list[Object], tmp_path: Path) -> None:
    """The check above can fail: without one of the files the collector refuses to start."""
    fewer = copy.deepcopy(objects)
    del find(fewer, "ConfigMap", "relay-otel-collector-.*")["data"]["browser_points.gen.yaml"]
    assert "browser_points.gen.yaml" in validate(fewer, "gateway", tmp_path).stderr


def test_each_collector_opens_the_ports_of_its_task(objects: list[Object]) -> None:
    """What a collector listens on beyond loopback is declared, and nothing else is declared: an agent takes no browser,
    a gateway no app. Every variable is in collector/README.md's table."""
    known = set(re.findall(r"`(RELAY_[A-Z_]+)`", (ROOT / "collector/README.md").read_text()))
    opened = {}
    for role in ROLES:
        container = collector(objects, role)
        assert {name for name in variables(container) if name.startswith("RELAY_")} <= known
        listening = {int(v.rpartition(":")[2]) for v in variables(container).values() if v.startswith("[::]:")}
        opened[role] = listening | {8888}  # its own metrics, for which there is a host and a port
        assert opened[role] == {port["containerPort"] for port in container["ports"]}
    assert opened == {
        "agent": {4317, 4318, 8889, 8888, 13133},
        "gateway": {4319, 8890, 8888, 13133},
        "flags": {4318, 8891, 8888, 13133},
    }


def test_an_app_process_is_seen_by_one_collector(objects: list[Object]) -> None:
    """The app sends to its node's agent only, of which there is never a second one, and flags have one collector."""
    (app,) = pods(objects)["relay-chat"]["spec"]["containers"]
    agents = find(objects, "Service", "relay-otel-agent")["spec"]
    flags = find(objects, "Deployment", "relay-otel-flags")["spec"]

    assert variables(app)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://relay-otel-agent:4318"
    assert agents["internalTrafficPolicy"] == "Local"
    rollout = find(objects, "DaemonSet", "relay-otel-agent")["spec"]["updateStrategy"]["rollingUpdate"]
    assert rollout["maxSurge"] == 0
    assert (flags["replicas"], flags["strategy"]) == (1, {"type": "Recreate"})
    assert variables(app)["RELAY_STAGE"] == variables(collector(objects, "gateway"))["RELAY_STAGE"]
    assert "service.instance.id" not in variables(app)["OTEL_RESOURCE_ATTRIBUTES"]


def test_every_variable_of_the_app_is_known(objects: list[Object]) -> None:
    """RELAY_OTEL_* stand in docs/settings.md."""
    (app,) = pods(objects)["relay-chat"]["spec"]["containers"]
    known = set(re.findall(r"`(RELAY_[A-Z_]+)`", (ROOT / "docs/settings.md").read_text()))
    assert {name for name in variables(app) if name.startswith("RELAY_")} <= known


# -- the monitors --


def scrape_job(monitor: Object) -> Object:
    """The job of prometheus.yml that an operator makes of it, as far as ours has the same keys."""
    spec = monitor["spec"]
    (endpoint,) = spec["endpoints"]
    (job,) = (each["replacement"] for each in endpoint["relabelings"] if each.get("targetLabel") == "job")
    made = {
        "job_name": job,
        "honor_labels": endpoint.get("honorLabels", False),
        "sample_limit": spec.get("sampleLimit"),
        "label_value_length_limit": spec.get("labelValueLengthLimit"),
    }
    return {key: value for key, value in made.items() if value}


def test_the_monitors_are_the_jobs_of_prometheus_yml(objects: list[Object]) -> None:
    """The same names, honor_labels and limits, at the interval that the rules count on, of ports that are there."""
    config = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    ours = [job for job in config["scrape_configs"] if job["job_name"].startswith("collector")]
    monitors = [each for each in objects if each["kind"] == "ServiceMonitor"]

    def plain(jobs: list[Object]) -> dict[str, Object]:
        return {job["job_name"]: {k: v for k, v in job.items() if k != "file_sd_configs"} for job in jobs}

    assert plain([scrape_job(each) for each in monitors]) == plain(ours)
    scraped = set()
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["interval"] == config["global"]["scrape_interval"]
        labels = monitor["spec"]["selector"]["matchLabels"]
        for each in objects:
            if each["kind"] == "Service" and labels.items() <= each["metadata"].get("labels", {}).items():
                (port,) = (port for port in each["spec"]["ports"] if port["name"] == endpoint["port"])
                assert each["spec"]["clusterIP"] == "None" and each["spec"]["publishNotReadyAddresses"]
                scraped.add((scrape_job(monitor)["job_name"], each["metadata"]["name"], port["port"]))
    assert scraped == {
        ("collector-apps", "relay-otel-agent-metrics", 8889),
        ("collector-browser", "relay-otel-gateway-metrics", 8890),
        ("collector-flags", "relay-otel-flags-metrics", 8891),
        *(("collector", f"relay-otel-{role}-metrics", 8888) for role in ROLES),
    }


@pytest.fixture
def operated(tmp_path: Path) -> Iterator[Callable[..., PrometheusApi]]:
    """Starts a Prometheus with one job, made of a ServiceMonitor's relabelings as an operator makes it."""
    started: list[Process] = []

    def start(name: str, relabelings: list[Object], targets: list[Object]) -> PrometheusApi:
        folder = tmp_path / name
        folder.mkdir()
        rules = [
            {re.sub("(?<!^)(?=[A-Z])", "_", key).lower(): value for key, value in each.items()} for each in relabelings
        ]
        config = {
            "global": {"scrape_interval": "500ms"},
            "scrape_configs": [
                {
                    "job_name": "serviceMonitor/ours/relay-otel-apps/0",
                    "honor_labels": True,
                    "static_configs": targets,
                    "relabel_configs": rules,
                }
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        port = free_port()
        flags = [line for line in (ROOT / "prometheus/flags").read_text().splitlines() if line.startswith("--")]
        process = Process(
            "Prometheus",
            [
                str(tool("prometheus")),
                *flags,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{port}",
            ],
            ready=lambda: answers(f"http://{HOST}:{port}/-/ready"),
            ports={"port": port},
        )
        started.append(process.start())
        return PrometheusApi(f"http://{HOST}:{port}")

    yield start
    for each in started:
        each.close()


def test_an_agent_that_is_replaced_counts_nothing_twice(
    objects: list[Object], operated: Callable[..., PrometheusApi]
) -> None:
    """A pod's counter goes on as the same series when its node's agent becomes another pod. The control: with the
    labels that an operator writes of itself it is two series, and the second brings the whole total again."""
    began = time.time_ns() - 60 * 10**9
    totals = {"relay-otel-agent-x7k2p": 100, "relay-otel-agent-m9wqd": 150}
    ports = {pod: free_port() for pod in totals}
    kept = find(objects, "ServiceMonitor", "relay-otel-apps")["spec"]["endpoints"][0]["relabelings"]
    written = {"namespace": "ours", "service": "relay-otel-agent-metrics", "endpoint": "apps", "container": "collector"}
    targets = [{"targets": [f"{HOST}:{port}"], "labels": written | {"pod": pod}} for pod, port in ports.items()]
    ours, control = operated("ours", kept, targets), operated("control", [], targets)
    counted = "sum(max_over_time(chat_total[10m]) - min_over_time(chat_total[10m]))"

    def send(agent: Collector, total: int) -> None:
        point = {"startTimeUnixNano": str(began), "timeUnixNano": str(time.time_ns()), "asInt": str(total)}
        metric = {
            "name": "chat_total",
            "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [point]},
        }
        texts = {"service.name": "relay-chat", "service.instance.id": "i-1"}
        attributes = [{"key": key, "value": {"stringValue": text}} for key, text in texts.items()]
        resource = {"resource": {"attributes": attributes}, "scopeMetrics": [{"metrics": [metric]}]}
        body = json.dumps({"resourceMetrics": [resource]}).encode()
        request = urllib.request.Request(
            f"{agent.otlp_endpoint}/v1/metrics", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=5).close()

    # Both are targets from the start: an agent that is not there, or no more, is one that cannot be scraped.
    for pod, total in totals.items():
        with Collector(prometheus_port=ports[pod]) as agent:
            send(agent, total)
            for prometheus in (ours, control):
                seen = functools.partial(prometheus.value, f"max(timestamp(chat_total) and chat_total == {total})")
                await_(seen, f"a scrape of {total}")

    assert {"ours": 150, "control": 250} == {"ours": ours.value(counted), "control": control.value(counted)}


COUNTS = """
import relay_otel, sys, time
relay_otel.configure()
relay_otel.counter("checks").add(int(sys.argv[1]))
print("counted", flush=True)
time.sleep(60) if sys.argv[2:] == ["stay"] else relay_otel.shutdown()
"""


@pytest.mark.parametrize("shared", [True, False])
def test_what_a_killed_container_had_counted_is_sent_by_the_next(
    objects: list[Object], shared: bool, tmp_path: Path
) -> None:
    """In a pod whose containers share processes and the runtime directory. The control: without the first the next
    container cannot know that the other one is dead."""
    pod = pods(objects)["relay-chat"]["spec"]
    (mount,) = (each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "runtime")
    assert (
        pod["shareProcessNamespace"] and mount["mountPath"] == variables(pod["containers"][0])["RELAY_OTEL_RUNTIME_DIR"]
    )
    container = [sys.executable, "-c", COUNTS]
    if not shared:
        root = [] if os.geteuid() == 0 else ["--map-root-user"]
        container = ["unshare", *root, "--pid", "--fork", "--kill-child", "--mount-proc", *container]
    with Collector() as agent:
        environment = clean_environment(
            OTEL_SERVICE_NAME="relay-chat",
            RELAY_STAGE="beta",
            OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_endpoint,
            RELAY_OTEL_RUNTIME_DIR=str(tmp_path),
        )
        first = subprocess.Popen([*container, "7", "stay"], env=environment, stdout=subprocess.PIPE)
        assert first.stdout is not None and first.stdout.readline() == b"counted\n"
        first.kill()
        first.wait()
        first.stdout.close()
        subprocess.run([*container, "5"], env=environment, stdout=subprocess.DEVNULL, check=True)

        def sent() -> list[int]:
            text = urllib.request.urlopen(agent.prometheus_url, timeout=5).read().decode()
            return sorted(int(value) for value in re.findall(r"(?m)^checks_total\{.*\} (\d+)$", text))

        await_(lambda: 5 in sent(), "the second container's count")
        if shared:
            await_(lambda: 7 in sent(), "the first container's count")
        assert sent() == ([5, 7] if shared else [5])


# -- what the README says --


def test_the_readme_overlay_renders(objects: list[Object], tmp_path: Path) -> None:
    """The README's overlay, with the ingress for browsers: valid, in its namespace, the stage where it was said."""
    (text,) = re.findall(r"```yaml\n(# my/kustomization\.yaml.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    for name in ("collector", "deploy/kubernetes"):
        shutil.copytree(ROOT / name, tmp_path / "relay-otel" / name)
    (tmp_path / "my").mkdir()
    (tmp_path / "my/kustomization.yaml").write_text(text)

    made = kustomize(tmp_path / "my")

    for each in made:
        check(each)
        assert each["metadata"]["namespace"] == "chat"
    assert len(made) == len(objects) + 2
    ingress = find(made, "Ingress", "relay-otel-gateway")
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    service = find(made, "Service", path["backend"]["service"]["name"])
    assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    gateway = variables(collector(made, "gateway"))
    assert json.loads(gateway["RELAY_COLLECTOR_BROWSER_ORIGINS"]) == ["https://chat.example.com"]
    assert (
        gateway["RELAY_STAGE"] == "beta" == variables(pods(made)["relay-chat"]["spec"]["containers"][0])["RELAY_STAGE"]
    )
    said = validate(made, "gateway", tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
