"""The whole story on one machine: the demo app, its traffic, the collector, Prometheus on both paths, a probe.

    python tools/demo.py                      with a live panel, until Ctrl-C
    python tools/demo.py --for 60 --check     then compare the client's book with both Prometheuses, number by number

    traffic ─▶ app ── OTLP ─▶ collector ◀── Prometheus on prometheus.yml    the product's way
                └──────── /metrics ◀─────── Prometheus on direct.yml        the way without a collector

Usual ports where they are free, others where not. Exit: 0 when all is equal, 1 when not, 2 when it cannot run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: `python tools/demo.py`

from examples.relay_chat import traffic
from examples.relay_chat.traffic import Book, Entry
from relay_otel.instruments import DEFINITIONS
from tools.process import StackError, await_, free_port
from tools.stack import Blackbox, Collector, Prometheus, Server, uvicorn

SERVICE, STAGE = "relay-chat", "demo"
HEALTH = "/health"
INTERVAL_SECONDS = 2.0  # between exports and between scrapes: lively, where production has 10 and 15
WINDOW = "15s"  # of the panel's rates: seven scrapes
PANEL_SECONDS = 1.0
LINE_SECONDS = 5.0  # where there is no terminal
CHAPTERS = ("steady", "errors", "slow")
"""What the traffic does in turn, unless --scenario names one: each once in --for, or in a minute that comes again."""
USUAL_PORTS = {
    "app": 8000,
    "Prometheus": 9090,
    "Prometheus, direct": 9091,
    "collector": 4318,
    "collector, series": 8889,
    "collector, own": 8888,
    "probe": 9115,
}


@dataclass(frozen=True)
class Stack:
    """What runs. ``product`` scrapes the collector, ``direct`` the app."""

    app: Server
    collector: Collector
    blackbox: Blackbox
    product: Prometheus
    direct: Prometheus


@contextlib.contextmanager
def stack(*, usual_ports: bool) -> Iterator[Stack]:
    """Start it all; end it all."""
    ports = {name: free_port(usual if usual_ports else None) for name, usual in USUAL_PORTS.items()}
    with contextlib.ExitStack() as running:
        collector = Collector(
            port=ports["collector"], prometheus_port=ports["collector, series"], own_port=ports["collector, own"]
        )
        running.enter_context(collector)
        blackbox = running.enter_context(Blackbox(port=ports["probe"]))
        app = Server(
            uvicorn("examples.relay_chat.app:app", wrapper=True),
            port=ports["app"],
            environment={
                "OTEL_SERVICE_NAME": SERVICE,
                "RELAY_STAGE": STAGE,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": str(round(INTERVAL_SECONDS * 1000)),
            },
        )
        running.enter_context(app)
        probe = {"probe": [blackbox.target(app.url + HEALTH, STAGE)]}
        product = Prometheus(targets=collector.targets | probe, interval=INTERVAL_SECONDS, port=ports["Prometheus"])
        direct = Prometheus(
            "direct.yml",
            targets=probe | {"apps": [app.target(SERVICE)]},
            interval=INTERVAL_SECONDS,
            port=ports["Prometheus, direct"],
        )
        running.enter_context(product)
        running.enter_context(direct)
        yield Stack(app, collector, blackbox, product, direct)


class Traffic:
    """Users of the app, on a thread of their own, from ``with`` until ``stop``.

    Args:
        url: the app.
        scenario: the only one, or None for all in turn.
        round_seconds: how long all take together.
    """

    def __init__(self, url: str, scenario: str | None, round_seconds: float) -> None:
        self.book = Book()
        self._url, self._scenario = url, scenario
        self._chapter_seconds = round_seconds / len(CHAPTERS)
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._error: BaseException | None = None

    def scenario(self) -> str:
        """The one that is on."""
        chapter = int((time.monotonic() - self._began) / self._chapter_seconds) % len(CHAPTERS)
        return self._scenario or CHAPTERS[chapter]

    def wait(self, seconds: float) -> None:
        """Let them ask for so long."""
        self._thread.join(max(0.0, seconds))
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ask no more, and wait until every answer is in the book."""
        self._stop.set()
        self.wait(traffic.TIMEOUT_SECONDS * 2)

    def __enter__(self) -> Traffic:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            asyncio.run(traffic.drive(self._url, self.book, scenario=self.scenario, going=self._going))
        except BaseException as error:
            self._error = error

    def _going(self) -> bool:
        return not self._stop.is_set()


# -- the panel --

RATE = f'sum(rate(http_requests_total{{endpoint!="{HEALTH}"}}[{WINDOW}]))'
ERRORS = f'sum(rate(http_requests_total{{endpoint!="{HEALTH}",status_code=~"5.."}}[{WINDOW}])) or vector(0)'
IN_FLIGHT = f'sum(http_requests_in_flight{{endpoint!~"{HEALTH}|unmatched"}})'  # a probe is unmatched until routed
P95 = (
    "histogram_quantile(0.95,"
    f' sum by (le) (rate(http_request_duration_seconds_bucket{{endpoint!="{HEALTH}"}}[{WINDOW}])))'
)


@dataclass(frozen=True)
class Reading:
    """What one Prometheus says right now; None where it cannot say yet."""

    rate: float | None
    error_rate: float | None
    p95: float | None

    @staticmethod
    def of(prometheus: Prometheus) -> Reading:
        return Reading(
            prometheus.value(RATE),
            prometheus.value(f"({ERRORS}) / {RATE}"),
            prometheus.value(P95),
        )

    def __str__(self) -> str:
        return (
            f"{_shown(self.rate, '{:6.1f}')} requests/s   {_shown(self.error_rate, '{:6.1%}')} errors"
            f"   p95 {_shown(self.p95, '{:6.3f}')} s"
        )


def _shown(value: float | None, form: str) -> str:
    return "     -" if value is None or value != value else form.format(value)


def export_health(product: Prometheus) -> str:
    age = product.value("time() - max(relay_otel_last_export_timestamp_seconds)")
    failures = product.value("sum(relay_otel_export_failures_total)")
    probe = product.value("min(probe_success)")
    said = "no export seen yet" if age is None else f"last export {age:.0f} s ago, {failures or 0:.0f} failed"
    return f"{said}; probe {'has not asked yet' if probe is None else 'ok' if probe == 1 else 'FAILS'}"


def urls(running: Stack) -> list[str]:
    """Where everything is, and which port is not the usual one."""
    query = "/query?g0.expr=http_requests_total"
    chosen = {
        "app": (running.app.port, f"{running.app.url}/metrics"),
        "Prometheus": (running.product.port, running.product.url + query),
        "Prometheus, direct": (running.direct.port, running.direct.url + query),
        "collector": (running.collector.port, running.collector.otlp_endpoint),
        "collector, series": (running.collector.prometheus_port, running.collector.prometheus_url),
        "collector, own": (running.collector.own_port, running.collector.own_metrics_url),
        "probe": (running.blackbox.port, f"http://127.0.0.1:{running.blackbox.port}"),
    }
    return [
        f"{name:20}{url}" + ("" if port == USUAL_PORTS[name] else f"   (instead of port {USUAL_PORTS[name]})")
        for name, (port, url) in chosen.items()
    ]


def watch(running: Stack, users: Traffic, seconds: float | None) -> None:
    """Show the panel until the time is over or somebody presses Ctrl-C."""
    in_place = sys.stdout.isatty()
    began = time.monotonic()
    if not in_place:
        print("\n".join(urls(running)), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while seconds is None or time.monotonic() - began < seconds:
            gone = time.monotonic() - began
            scenario, answers = users.scenario(), users.book.answers.total()
            product, direct = Reading.of(running.product), Reading.of(running.direct)
            health = export_health(running.product)
            if in_place:
                lines = [
                    *urls(running),
                    "",
                    f"{gone:.0f} s, {scenario}: {answers} answers",
                    f"{'by the collector':20}{product}",
                    f"{'direct':20}{direct}",
                    f"{'export':20}{health}",
                    "",
                    "Ctrl-C ends it.",
                ]
                print("\033[H\033[J" + "\n".join(lines), flush=True)
            else:
                print(f"{gone:4.0f} s {scenario:7}{answers:6} answers | {product} | {health}", flush=True)
            pause = PANEL_SECONDS if in_place else LINE_SECONDS
            left = pause if seconds is None else began + seconds - time.monotonic()
            users.wait(min(pause, left))
            if not running.app.running:
                raise StackError(f"{running.app.tail()}The app ended in mid-demo; its last lines are above.")


# -- the check --


@dataclass(frozen=True)
class Row:
    """One series as the client saw it and as each path shows it."""

    entry: Entry
    book: float
    product: float
    direct: float

    @property
    def judged(self) -> bool:
        """The prober asks for health, and it keeps no book."""
        return self.entry.endpoint != HEALTH

    @property
    def equal(self) -> bool:
        return not self.judged or self.book == self.product == self.direct


def compare(book: Mapping[Entry, int], product: Mapping[Entry, float], direct: Mapping[Entry, float]) -> list[Row]:
    """A row for each (method, endpoint, status) that anybody has with another number than 0, in order."""
    entries = sorted({entry for each in (book, product, direct) for entry, count in each.items() if count})
    return [Row(entry, book.get(entry, 0), product.get(entry, 0), direct.get(entry, 0)) for entry in entries]


def totals(prometheus: Prometheus, at: float) -> dict[Entry, float]:
    """http_requests_total at an instant."""
    samples = prometheus.query("sum by (method, endpoint, status_code) (http_requests_total)", at)
    return {
        Entry(each.labels["method"], each.labels["endpoint"], int(each.labels["status_code"])): each.value
        for each in samples
    }


def missing_metrics(prometheus: Prometheus, at: float) -> list[str]:
    """Metrics that the contract calls emitted, by the app or the probe, and that are not there."""
    wanted = [each for each in DEFINITIONS.values() if each.status == "emitted" and each.emitter in ("app", "probe")]
    return [
        each.name
        for each in wanted
        if not prometheus.query(f"count({each.name}{'_count' if each.kind == 'histogram' else ''})", at)
    ]


def settled(running: Stack) -> tuple[float, float]:
    """Wait until both Prometheuses hold what the app holds; the instant of each.

    The app writes down when an export arrived, and the next export carries that time. So a time later than now, seen
    in Prometheus, means that an export which began after now was scraped.
    """
    now = time.time()

    def exported() -> bool:
        latest = running.product.value("max(relay_otel_last_export_timestamp_seconds)")
        return latest is not None and latest > now

    await_(exported, "The app's last export did not come through the collector to Prometheus")
    running.product.wait_scrape("probe", since=now)
    return running.product.wait_scrape("collector-apps", since=now), running.direct.wait_scrape("apps", since=now)


def check(running: Stack, book: Book) -> bool:
    """Print book beside both paths; whether they are equal, nothing is missing and the probe is content."""
    at, direct_at = settled(running)
    rows = compare(book.answers, totals(running.product, at), totals(running.direct, direct_at))
    print(table(rows))
    missing = missing_metrics(running.product, at)
    probe = running.product.value("min(probe_success)")
    in_flight = [running.product.value(IN_FLIGHT, at), running.direct.value(IN_FLIGHT, direct_at)]
    dropped = running.product.value("sum(relay_otel_dropped_total)", at)
    problems = [
        *(_difference(row) for row in rows if not row.equal),
        *(f"{name} is emitted, says the contract, and is not in Prometheus." for name in missing),
    ]
    if not any(row.judged for row in rows):
        problems.append("Nothing was compared: the traffic got no answer.")
    if book.unanswered:
        problems.append(f"The app left requests unanswered: {dict(book.unanswered)}.")
    if dropped:
        said = [line for line in running.app.log.read_text(errors="replace").splitlines() if "relay-otel: " in line]
        problems.append("\n".join([f"relay-otel dropped {dropped:g} measurements; the app's log says:", *said]))
    if in_flight != [0, 0]:
        problems.append(
            f"Nothing is asked any more, but requests are in flight (by the collector, direct): {in_flight}."
        )
    if probe != 1:
        problems.append(f"probe_success is {probe}, not 1: the prober does not reach {running.app.url}{HEALTH}.")
    sick = [row for row in rows if not row.judged and row.entry.status != 200]
    problems += [f"{HEALTH} answered {row.entry.status}." for row in sick]
    print("\n".join(problems) or f"Equal: {sum(book.answers.values())} answers, {len(rows)} rows, on both paths.")
    return not problems


def _difference(row: Row) -> str:
    method, endpoint, status = row.entry
    return (
        f"{method} {endpoint} {status} differs: the client saw {row.book:g}, "
        f"by the collector it is {row.product:g}, direct {row.direct:g}."
    )


def table(rows: Sequence[Row]) -> str:
    """Endpoint, status, book, collector path, direct path."""
    width = max([len(f"{row.entry.method} {row.entry.endpoint}") for row in rows], default=0) + 2
    lines = [f"{'endpoint':{width}}{'status':>8}{'book':>10}{'collector':>12}{'direct':>10}"]
    for row in rows:
        method, endpoint, status = row.entry
        book = f"{row.book:g}" if row.judged else "probed"
        mark = "" if row.equal else "   differs"
        lines.append(f"{method + ' ' + endpoint:{width}}{status:>8}{book:>10}{row.product:>12g}{row.direct:>10g}{mark}")
    return "\n".join(lines)


# -- the command --


@contextlib.contextmanager
def stopped_cleanly() -> Iterator[None]:
    """SIGTERM and a closed terminal end it as Ctrl-C does: no process is left behind."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="The demo app with traffic, collector, Prometheus and a live panel.")
    parser.add_argument("--for", dest="seconds", type=float, help="seconds of traffic (until Ctrl-C)")
    parser.add_argument("--check", action="store_true", help="in the end compare the client's book with Prometheus")
    parser.add_argument("--scenario", choices=traffic.SCENARIOS, help="one kind of traffic only (all in turn)")
    parser.add_argument("--lose", type=int, default=0, metavar="N", help="drop N answers from the book: it must notice")
    parser.add_argument("--free-ports", action="store_true", help="leave the usual ports alone, as tests do")
    chosen = parser.parse_args(arguments)
    try:
        with (
            stopped_cleanly(),
            stack(usual_ports=not chosen.free_ports) as running,
            Traffic(running.app.url, chosen.scenario, chosen.seconds or 60.0) as users,
        ):
            watch(running, users, chosen.seconds)
            users.stop()
            users.book.lose(chosen.lose)
            return 0 if not chosen.check or check(running, users.book) else 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except StackError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
