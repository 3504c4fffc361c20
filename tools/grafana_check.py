"""A Grafana and a folder of dashboards in; what is not there, errs or stays empty out.

    python -m tools.grafana_check                                  Grafana in a container, beside the demo
    python -m tools.grafana_check --image grafana/grafana:12.4.5   the same with another Grafana
    python -m tools.grafana_check --url http://localhost:3000      one that runs; GRAFANA_USER and GRAFANA_PASSWORD

For machines with Docker Compose, or with a Grafana. All is asked by Grafana's own API, so by the data source and the
provisioning that its users have. Exit: 0 when all is well, 1 when not, 2 when it cannot run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from grafana.targets import FOLDER, SCRAPE_SECONDS, Board, Target, boards, everything, fill, panels, targets, variables
from tools.chat_stack import busy_stack
from tools.demo import stopped_cleanly
from tools.process import HOST, ROOT, Process, StackError, answers, await_, free_port

IMAGE = "grafana/grafana:13.2.3"
COMPOSE = ROOT / "grafana" / "check.compose.yaml"
SOURCE, PLACE = "prometheus", "relay"  # uids of the data source and the folder in grafana/provisioning
RANGE_SECONDS = 3600
PATIENCE_SECONDS = 180.0  # until the image is here and Grafana answers; then until every panel has something

Check = Callable[[], str]  # what is wrong, nothing where all is well
_fill = partial(fill, step=SCRAPE_SECONDS, range_seconds=RANGE_SECONDS)


class Grafana:
    """One Grafana by its HTTP API, asked what is wrong with it."""

    def __init__(self, url: str, user: str, password: str, *, proxies: bool) -> None:
        self.client = httpx.Client(base_url=url, auth=(user, password), timeout=30, trust_env=proxies)

    def version(self) -> str | None:
        """None while it does not answer."""
        status, body = self.ask("/api/health")
        return str(body.get("version", "of unknown version")) if status == 200 else None

    def ask(self, path: str, method: str = "GET", **more: Any) -> tuple[int, dict[str, Any]]:
        """Status and body. No answer is 0; what is no JSON comes from somebody between us and Grafana."""
        try:
            answer = self.client.request(method, path, **more)
        except httpx.TransportError as error:
            return 0, {"message": f"no answer ({type(error).__name__})"}
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status_code, answer.json() if is_json else {}

    def source(self) -> str:
        """The data source, as "Save & test" asks it."""
        status, body = self.ask(f"/api/datasources/uid/{SOURCE}/health")
        return "" if body.get("status") == "OK" else f"data source {SOURCE}: {body.get('message', status)}"

    def holds(self, board: Board) -> str:
        """A dashboard: there, in its folder, and as its file."""
        uid = board["uid"]
        status, body = self.ask(f"/api/dashboards/uid/{uid}")
        if status != 200:
            return f"{uid}: Grafana does not give it: {body.get('message', status)}"
        if body["meta"].get("folderUid") != PLACE or not body["meta"].get("provisioned"):
            return f"{uid}: is not provisioned in the folder {PLACE}"
        differing = {name for name, _ in _outline(board).items() ^ _outline(body["dashboard"]).items()}
        return f"{uid}: differs from its file in {', '.join(sorted(differing))}" if differing else ""

    def offers(self, board: Board, variable: str, selector: str, label: str) -> str:
        """A variable has values."""
        path = f"/api/datasources/uid/{SOURCE}/resources/api/v1/label/{label}/values"
        _, body = self.ask(path, params={"match[]": _fill(selector, everything(board))})
        return "" if body.get("data") else f"{board['uid']}: variable {variable} has no values"

    def replies(self, board: Board, target: Target) -> str:
        """A query, asked as a panel asks it."""
        query = {
            "refId": target.ref,
            "datasource": {"type": "prometheus", "uid": SOURCE},
            "expr": _fill(target.expr, everything(board)),
            **({"instant": True} if target.instant else {"range": True}),
            "intervalMs": SCRAPE_SECONDS * 1000,
        }
        window = {"from": f"now-{RANGE_SECONDS}s", "to": "now"}
        status, body = self.ask("/api/ds/query", "POST", json={**window, "queries": [query]})
        result = body.get("results", {}).get(target.ref, {})
        if status != 200 or "error" in result:
            return f"{target}: {result.get('error') or body.get('message', status)}"
        return "" if _has_numbers(result) else f"{target}: no data"


def _outline(board: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Title and panels, each with its queries. Links of alerts go by the panels' ids."""
    shown = panels({"panels": [], **board})
    named = {f'panel {each["id"]} "{each.get("title")}"': each.get("targets", ()) for each in shown}
    return {f'title "{board["title"]}"': ()} | {name: tuple(q["expr"] for q in asked) for name, asked in named.items()}


def _has_numbers(result: Mapping[str, Any]) -> bool:
    """Grafana sends null for NaN, and a frame without fields for nothing."""
    return any(
        field["type"] == "number" and any(value is not None for value in column)
        for frame in result.get("frames", ())
        for field, column in zip(frame["schema"]["fields"], frame["data"]["values"], strict=False)
    )


def checks(grafana: Grafana, shown: Mapping[str, Board]) -> list[Check]:
    """All there is to ask about these dashboards."""
    each: list[Check] = [grafana.source]
    for board in shown.values():
        each.append(partial(grafana.holds, board))
        each += [partial(grafana.offers, board, name, *asked) for name, asked in variables(board).items()]
        each += [partial(grafana.replies, board, target) for target in targets(board)]
    return each


def problems(asked: Sequence[Check], seconds: float) -> list[str]:
    """What is wrong still after so many seconds; what was well once is not asked again."""
    left = dict.fromkeys(asked, "")

    def all_well() -> bool:
        nonlocal left
        left = {check: wrong for check in left if (wrong := check())}
        return not left

    with contextlib.suppress(StackError):
        await_(all_well, "something stays wrong", seconds)
    return list(left.values())


def start(running: contextlib.ExitStack, image: str, folder: Path) -> Grafana:
    """The demo, and Grafana in a container on its Prometheus, until ``running`` ends."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        raise StackError("docker compose is not here; install it, or name a running Grafana with --url URL.")
    demo = running.enter_context(busy_stack())
    port, password = free_port(), secrets.token_urlsafe()
    url = f"http://{HOST}:{port}"
    settings = {"IMAGE": image, "PORT": str(port), "ADMIN_PASSWORD": password, "PROMETHEUS_URL": demo.product.url}
    settings["DASHBOARDS"] = str(folder.resolve())
    environment = os.environ | {f"RELAY_GRAFANA_{name}": value for name, value in settings.items()}
    # A project of its own, so that two checks on one machine leave each other alone.
    words = [docker, "compose", "--file", str(COMPOSE), "--project-name", f"relay-otel-grafana-check-{port}"]
    running.callback(subprocess.run, [*words, "down", "--volumes"], env=environment, capture_output=True, check=False)
    up, ready = [*words, "up", "--abort-on-container-exit"], partial(answers, f"{url}/api/health")
    container = Process("Grafana in a container", up, ready=ready, ports={"Grafana": port}, environment=environment)
    running.callback(container.close)
    container.start(PATIENCE_SECONDS)
    return Grafana(url, "admin", password, proxies=False)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Every dashboard and every query, asked through Grafana.")
    parser.add_argument("--url", help="a Grafana that runs, as GRAFANA_USER with GRAFANA_PASSWORD (one in a container)")
    parser.add_argument("--image", default=IMAGE, help=f"what the container is made of ({IMAGE})")
    parser.add_argument("--dashboards", type=Path, default=FOLDER, help="the folder of files (grafana/dashboards)")
    chosen = parser.parse_args(arguments)
    try:
        with stopped_cleanly(), contextlib.ExitStack() as running:
            if not (shown := boards(chosen.dashboards)):
                raise StackError(f"There are no dashboards in {chosen.dashboards}; run `make generate`.")
            if chosen.url:
                user, password = (os.environ.get(name, "") for name in ("GRAFANA_USER", "GRAFANA_PASSWORD"))
                grafana = Grafana(chosen.url, user, password, proxies=True)
            else:
                grafana = start(running, chosen.image, chosen.dashboards)
            if (version := grafana.version()) is None:
                raise StackError(f"No Grafana answers at {grafana.client.base_url}; name one that does with --url URL.")
            if grafana.ask("/api/user")[0] != 200:
                raise StackError("Grafana does not let this user in; set GRAFANA_USER and GRAFANA_PASSWORD.")
            asked = checks(grafana, shown)
            wrong = problems(asked, 0 if chosen.url else PATIENCE_SECONDS)
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    print("".join(f"{line}\n" for line in wrong), end="")
    print(f"Grafana {version}: {len(shown)} dashboards, {len(asked)} questions, {len(wrong)} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
