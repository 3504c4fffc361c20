"""tools/grafana_check.py against a stand-in that speaks Grafana's API and asks a real Prometheus; grafana/provisioning.

No Grafana can be had where this runs (docs/verification.md): the stand-in answers as Grafana's documentation and source
say, and is wrong where they are misread.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import grafana_check
from tools.process import HOST, ROOT, fetch
from tools.stack import Prometheus

USER, PASSWORD = "viewer", "correct horse"
GRAFANA = ROOT / "grafana"
RESOURCES = "/api/datasources/uid/prometheus/resources/"


def board(uid: str, *exprs: str, title: str = "") -> dict[str, Any]:
    """A dashboard with one panel a query, as small as grafana.targets can read: a chart, then panels that tell now."""
    return {
        "uid": uid,
        "title": title or f"The {uid}",
        "panels": [
            {
                "id": number,
                "type": "timeseries" if number == 1 else "stat",
                "title": f"Panel {number}",
                "fieldConfig": {"defaults": {}, "overrides": []},
                "targets": [{"refId": "A", "expr": expr, "instant": number > 1}],
            }
            for number, expr in enumerate(exprs, 1)
        ],
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource"},
                {"type": "query", "name": "job", "query": {"query": "label_values(up, job)"}, "allValue": ".+"},
            ]
        },
    }


def frames(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Prometheus' answer as Grafana hands it to a panel: columns, with null for NaN."""
    found = []
    result = answer["data"]["result"]
    if answer["data"]["resultType"] == "scalar":
        result = [{"metric": {}, "value": result}]
    for series in result:
        points = series.get("values") or [series["value"]]
        numbers = [None if value == "NaN" else float(value) for _, value in points]
        fields = [{"name": "Time", "type": "time"}, {"name": "Value", "type": "number", "labels": series["metric"]}]
        found.append({"schema": {"fields": fields}, "data": {"values": [[at * 1000 for at, _ in points], numbers]}})
    return found or [{"schema": {"fields": []}, "data": {"values": []}}]


class Grafana(ThreadingHTTPServer):
    """What Grafana would hold; ``boards`` by uid with their meta."""

    def __init__(self, prometheus_url: str) -> None:
        super().__init__((HOST, 0), Answer)
        self.prometheus_url = prometheus_url
        self.boards: dict[str, dict[str, Any]] = {}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    def provision(self, *boards: dict[str, Any], **meta: Any) -> None:
        for each in boards:
            known = {"folderUid": "relay", "provisioned": True, **meta}
            self.boards[each["uid"]] = {"dashboard": json.loads(json.dumps(each)), "meta": known}


class Answer(BaseHTTPRequestHandler):
    server: Grafana

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/api/health":
            return self.say(200, {"database": "ok", "version": "13.9.9"})
        if self.headers["authorization"] != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
            return self.say(401, {"message": "Invalid username or password"})
        if url.path == "/api/user":
            return self.say(200, {"login": USER})
        if url.path == "/api/datasources/uid/prometheus/health":
            try:
                fetch(f"{self.server.prometheus_url}/-/ready")
            except OSError:
                return self.say(400, {"status": "ERROR", "message": "connection refused"})
            return self.say(200, {"status": "OK", "message": "Successfully queried the Prometheus API."})
        if url.path.startswith(RESOURCES):
            return self.say(*self.asked(f"{url.path.removeprefix(RESOURCES)}?{url.query}"))
        held = self.server.boards.get(url.path.removeprefix("/api/dashboards/uid/"))
        return self.say(200, held) if held else self.say(404, {"message": "Dashboard not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/api/ds/query"
        assert {"from": "now-3600s", "to": "now"}.items() <= body.items()
        results, status = {}, 200
        for query in body["queries"]:
            assert query["datasource"] == {"type": "prometheus", "uid": "prometheus"}
            assert query.get("instant", False) != query.get("range", False)
            expr = urllib.parse.quote(query["expr"])
            path = f"query?query={expr}"
            if query.get("range"):
                path = f"query_range?query={expr}&start={self.now() - 3600}&end={self.now()}&step=15"
            said, answer = self.asked(f"api/v1/{path}")
            status = max(status, said)
            well = {"status": 200, "frames": frames(answer)} if said == 200 else {}
            results[query["refId"]] = well or {"status": said, "error": answer["error"], "frames": []}
        self.say(status, {"results": results})

    def now(self) -> float:
        return float(self.asked("api/v1/query?query=time()")[1]["data"]["result"][1])

    def asked(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            return 200, json.loads(fetch(f"{self.server.prometheus_url}/{path}"))
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except OSError as error:
            return 502, {"error": str(error)}

    def say(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=UTF-8")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    with Prometheus(targets={}, interval=0.5) as running:
        running.wait_scrape("prometheus")
        yield running


@pytest.fixture
def grafana(prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch) -> Iterator[Grafana]:
    monkeypatch.setenv("GRAFANA_USER", USER)
    monkeypatch.setenv("GRAFANA_PASSWORD", PASSWORD)
    with Grafana(prometheus.url) as running:
        thread = threading.Thread(target=running.serve_forever, args=[0.05])
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Check these dashboards: exit status and lines."""

    def check(url: str, *boards: dict[str, Any]) -> tuple[int, list[str]]:
        for each in boards:
            (tmp_path / f"{each['uid']}.gen.json").write_text(json.dumps(each))
        status = grafana_check.main(["--url", url, "--dashboards", str(tmp_path)])
        said = capsys.readouterr()
        return status, (said.out + said.err).splitlines()

    return check


UP = 'up{job=~"$job"}'
WELL = board("well", UP, f"count({UP})", "rate(prometheus_http_requests_total[$__rate_interval])")


def test_all_is_well(grafana: Grafana, run: Any) -> None:
    """Dashboards that are there as their files say, whose queries have data, are well."""
    other = board("other", UP)
    grafana.provision(WELL, other)
    # Grafana adds what it likes to a dashboard, and heads of rows have no queries.
    grafana.boards["other"]["dashboard"] |= {"id": 7, "version": 3, "schemaVersion": 42}
    grafana.boards["other"]["dashboard"]["panels"].append({"id": 900, "type": "row", "title": "More"})

    # Data source; two dashboards, each with a variable; four queries.
    assert run(grafana.url, WELL, other) == (0, ["Grafana 13.9.9: 2 dashboards, 9 questions, 0 problems"])


def test_each_fault_is_a_line(grafana: Grafana, run: Any) -> None:
    """A dashboard that is missing, elsewhere or changed; a panel that errs, is empty, or holds no number at all."""
    grafana.provision(WELL)
    missing, elsewhere, changed = board("missing", UP), board("elsewhere", UP), board("changed", UP, "time()")
    imported = board("imported", UP)
    grafana.provision(elsewhere, folderUid="")
    grafana.provision(imported, provisioned=False)
    grafana.provision(changed | {"title": "Renamed by hand"})
    grafana.boards["changed"]["dashboard"]["panels"][1]["targets"][0]["expr"] = "time() + 1"
    errs = board("errs", "rate(up)", UP)
    empty = board("empty", "no_such_metric", "0 * up / 0", "vector(1)")
    nowhere = board("nowhere", "vector(1)")
    nowhere["templating"]["list"][1]["query"]["query"] = "label_values(no_such_metric, job)"
    grafana.provision(errs, empty, nowhere)

    status, lines = run(grafana.url, WELL, missing, elsewhere, imported, changed, errs, empty, nowhere)

    assert (status, lines[-1]) == (1, "Grafana 13.9.9: 8 dashboards, 31 questions, 8 problems")
    assert lines[:-1] == [
        'changed: differs from its file in panel 2 "Panel 2", title "Renamed by hand", title "The changed"',
        "elsewhere: is not provisioned in the folder relay",
        "empty: Panel 1 (A): no data",
        "empty: Panel 2 (A): no data",
        'errs: Panel 1 (A): invalid parameter "query": 1:6: parse error: expected type range vector in call to '
        'function "rate", got instant vector',
        "imported: is not provisioned in the folder relay",
        "missing: Grafana does not give it: Dashboard not found",
        "nowhere: variable job has no values",
    ]


def test_a_data_source_that_does_not_answer_is_named(grafana: Grafana, run: Any) -> None:
    """Where Prometheus is away the data source says so, before each query does."""
    grafana.prometheus_url = f"http://{HOST}:1"
    grafana.provision(WELL)

    status, lines = run(grafana.url, WELL)

    assert (status, lines[0]) == (1, "data source prometheus: connection refused")


def test_without_a_login_it_cannot_run(grafana: Grafana, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that Grafana refuses is one sentence, not a hundred problems; no password is taken for granted."""
    monkeypatch.delenv("GRAFANA_USER")
    monkeypatch.delenv("GRAFANA_PASSWORD")

    sentence = "Grafana does not let this user in; set GRAFANA_USER and GRAFANA_PASSWORD."
    assert run(grafana.url, WELL) == (2, [sentence])


def test_where_nothing_answers_it_cannot_run(run: Any) -> None:
    sentence = f"No Grafana answers at http://{HOST}:1; name one that does with --url URL."
    assert run(f"http://{HOST}:1", WELL) == (2, [sentence])


def test_without_dashboards_it_cannot_run(grafana: Grafana, run: Any, tmp_path: Path) -> None:
    assert run(grafana.url) == (2, [f"There are no dashboards in {tmp_path}; run `make generate`."])


@pytest.mark.parametrize("docker", ["absent", "without compose"])
def test_without_docker_compose_it_cannot_run(
    docker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence says what is missing and what to do, before anything is started."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if docker == "without compose":
        (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "docker").chmod(0o755)
    (tmp_path / "well.gen.json").write_text(json.dumps(WELL))

    assert grafana_check.main(["--dashboards", str(tmp_path)]) == 2
    sentence = "docker compose is not here; install it, or name a running Grafana with --url URL.\n"
    assert capsys.readouterr() == ("", sentence)


def test_uids_are_those_that_dashboards_and_exemplars_name() -> None:
    """Dashboards name the data source prometheus, exemplars the data source traces, alerts the uids of dashboards."""
    sources = {}
    for file in (GRAFANA / "provisioning" / "datasources").glob("*.yml"):
        read = yaml.safe_load(file.read_text())
        assert (read["apiVersion"], read["prune"]) == (1, True)
        sources |= {each["uid"]: each for each in read["datasources"]}
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "relay.yml").read_text())["providers"]
    scraped = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]

    assert {uid: each["type"] for uid, each in sources.items()} == {"prometheus": "prometheus", "traces": "tempo"}
    told = sources[grafana_check.SOURCE]
    assert told["isDefault"] and told["jsonData"]["timeInterval"] == scraped
    assert [(each["name"], each["datasourceUid"]) for each in told["jsonData"]["exemplarTraceIdDestinations"]] == [
        ("trace_id", "traces")
    ]
    assert (provider["folderUid"], provider["allowUiUpdates"]) == (grafana_check.PLACE, False)


def test_every_variable_of_provisioning_is_documented_and_set() -> None:
    """Grafana knows no default for a variable: each stands in the README's table, and the check sets it."""
    texts = [file.read_text() for file in (GRAFANA / "provisioning").rglob("*.yml")]
    used = {name for text in texts for name in re.findall(r"(?<!\$)\$\{?([A-Z]\w+)", text)}
    rows = re.findall(r"^\| `(RELAY_GRAFANA_\w+)`", (GRAFANA / "README.md").read_text(), re.MULTILINE)
    (service,) = yaml.safe_load(grafana_check.COMPOSE.read_text())["services"].values()

    assert used and used == set(rows)
    assert used <= set(service["environment"])


def test_the_check_mounts_what_provisioning_reads() -> None:
    """The folder of dashboards in the container is the one that the provider reads, and the home page is in it."""
    (service,) = yaml.safe_load(grafana_check.COMPOSE.read_text())["services"].values()
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "relay.yml").read_text())["providers"]
    path = provider["options"]["path"]

    assert service["volumes"] == [
        "./provisioning:/etc/grafana/provisioning:ro",
        f"${{RELAY_GRAFANA_DASHBOARDS:?}}:{path}:ro",
    ]
    assert service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{path}/overview.gen.json"
    assert grafana_check.IMAGE in (GRAFANA / "README.md").read_text()
