"""Four processes of one service in; the price of sharing out: of a call, of one ``/metrics``, of a process's life.

A server's workers are processes, and prometheus_client chooses its multiprocess mode when it is imported. So every
candidate has processes of its own, here too: they do one thing for each line on stdin, and the parent lets them take
turns. ``python -m bench.workers CANDIDATE PLACE`` is such a process.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from bench.measure import Budget, Samples, Spread, Table, compared, interleaved
from bench.turns import Worker

if TYPE_CHECKING:
    from relay_otel.export.workers import Workers
    from relay_otel.recording import Recorder

ROUNDS = 40
ROUNDS_OF_A_PROCESS = 5  # then new processes, whose first scrape is the cold one
CALLS_ROUNDS = 80
CALLS_ROUNDS_OF_A_PROCESS = 20
CALLS = 2_000
LIVES = 20

WORKERS = 4
SERIES = 1_000
NAME = "route_duration_seconds"
LABELS = ("method", "route", "environment")
BOUNDS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)

FILE, MEMORY = "relay_otel, in a shared file", "relay_otel, in anonymous memory"
SINGLE, MULTI = "prometheus_client, one process", "prometheus_client, multiprocess mode"
OTEL = "OpenTelemetry SDK"
FOUR_OURS, FOUR_CLIENTS = f"relay_otel, {WORKERS} workers", f"prometheus_client, {WORKERS} workers"
READER = "OpenTelemetry SDK's Prometheus reader"

SCRAPES = {FOUR_OURS: FILE, FILE: FILE, MEMORY: MEMORY, FOUR_CLIENTS: MULTI, SINGLE: SINGLE, READER: OTEL}
"""Row -> what its processes run."""
WARM_BUDGETS = (Budget(FOUR_OURS, 1 / 2.5, FILE), Budget(FOUR_OURS, 25, FOUR_CLIENTS))
COLD_BUDGETS = (Budget(FOUR_OURS, 5, FOUR_CLIENTS),)


def tables(
    rounds: int = ROUNDS, calls_rounds: int = CALLS_ROUNDS, calls: int = CALLS, lives: int = LIVES
) -> list[Table]:
    """``/metrics`` warm and cold, calls of counters and histograms, and what a process costs from fork to fold."""
    return [*_scrapes(rounds), *_calls(calls_rounds, calls), _life(lives)]


def _process(candidate: str, place: str) -> Worker:
    extra = {"PROMETHEUS_MULTIPROC_DIR": place} if candidate == MULTI else {}
    return Worker("bench.workers", candidate, place, extra=extra)


@contextmanager
def _places() -> Iterator[Callable[[], str]]:
    """Empty directories, in memory where the machine has such a place: where relay_otel would go by itself."""
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="bench-", dir=shared) as base:
        yield lambda: tempfile.mkdtemp(dir=base)


# -- /metrics --


def _scrapes(rounds: int) -> list[Table]:
    warm: Samples = {row: [] for row in SCRAPES}
    cold: Samples = {row: [] for row in SCRAPES}
    for done in range(0, rounds, ROUNDS_OF_A_PROCESS):
        with ExitStack() as stack:
            place = stack.enter_context(_places())  # left last, after the processes
            scraped: dict[str, Worker] = {}
            processes = []
            for row, candidate in SCRAPES.items():
                many, where = row in (FOUR_OURS, FOUR_CLIENTS), place()
                times = 1 if many else WORKERS  # so that all show the same samples
                for _ in range(WORKERS if many else 1):
                    scraped[row] = stack.enter_context(_process(candidate, where))
                    processes.append((scraped[row], times))
            for process, times in processes:
                process.tell(f"fill {times}")
            for process, _ in processes:
                process.answer()
            turns = {row: process.turn("scrape") for row, process in scraped.items()}
            for row, found in interleaved(turns, 1).items():
                cold[row] += found
            _check_samples({row: process.ask(f"text {place()}/text") for row, process in scraped.items()})
            for row, found in interleaved(turns, min(ROUNDS_OF_A_PROCESS, rounds - done)).items():
                warm[row] += found
    note = f"Of {SERIES:,} histogram series, 11,000 samples; text format 0.0.4."
    return [
        _scrape_table(
            "/metrics of many processes",
            warm,
            WARM_BUDGETS,
            f"{rounds} interleaved rounds of one scrape. {note} Those of {WORKERS} workers have all series in each.",
        ),
        _scrape_table(
            "/metrics of many processes: a worker's first scrape",
            cold,
            COLD_BUDGETS,
            f"{len(cold[FOUR_OURS])} interleaved rounds, all processes new in each. {note}",
        ),
    ]


def _scrape_table(title: str, samples: Samples, budgets: tuple[Budget, ...], note: str) -> Table:
    cost = {row: Spread.of(times) for row, times in samples.items()}
    comparison = compared(cost, FOUR_OURS, budgets)
    table = Table(title, ("candidate", "ms a scrape (quartiles)", "to ours", "budget"))
    for row, spread in cost.items():
        table.rows.append((row, str(spread), *comparison[row]))
    table.notes.append(note)
    return table


def _check_samples(paths: dict[str, str]) -> None:
    """A text that lacks series is quick.

    Raises:
        AssertionError: a candidate does not show the same samples as ours.
    """
    ours = _samples(paths[FOUR_OURS])
    assert len(ours) == 11 * SERIES, f"ours has {len(ours)} samples"
    for row, path in paths.items():
        assert _samples(path) == ours, f"{row} shows other samples than ours"


def _samples(path: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): round(sample.value, 9)
        for family in text_string_to_metric_families(Path(path).read_text(encoding="utf-8"))
        if family.name == NAME
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


# -- calls --

KEYWORDS = "plan='pro', region='eu', channel='web', currency='EUR'"
ATTRIBUTES = "{'plan': 'pro', 'region': 'eu', 'channel': 'web', 'currency': 'EUR'}"
CALL_LABELS = ("plan", "region", "channel", "currency")
VALUES = {"plan": "pro", "region": "eu", "channel": "web", "currency": "EUR"}

STATEMENTS = {
    "relay_otel": {
        "counter by labels": f"counter.add(1, {ATTRIBUTES})",
        "counter bound": "counter_bound.add(1)",
        "histogram by labels": f"histogram.record(0.03, {ATTRIBUTES})",
        "histogram bound": "histogram_bound.record(0.03)",
    },
    "prometheus_client": {
        "counter by labels": f"counter.labels({KEYWORDS}).inc(1)",
        "counter bound": "counter_bound.inc(1)",
        "histogram by labels": f"histogram.labels({KEYWORDS}).observe(0.03)",
        "histogram bound": "histogram_bound.observe(0.03)",
    },
    OTEL: {
        "counter by labels": f"counter.add(1, {ATTRIBUTES})",
        "histogram by labels": f"histogram.record(0.03, {ATTRIBUTES})",
    },
}
BY_LABELS, BOUND = f"{FILE}, by labels", f"{FILE}, bound"
_COUNTER, _HISTOGRAM = (12, 3), (10, 2.5)
TIMES_OF_MEMORY = 1.1


def _budgets(otel: float, client: float) -> tuple[Budget, ...]:
    return (
        Budget(BY_LABELS, 1 / TIMES_OF_MEMORY, f"{MEMORY}, by labels"),
        Budget(BOUND, 1 / TIMES_OF_MEMORY, f"{MEMORY}, bound"),
        Budget(BY_LABELS, otel, f"{OTEL}, by labels"),
        Budget(BOUND, client, f"{SINGLE}, bound"),
    )


def _calls(rounds: int, calls: int) -> list[Table]:
    found: dict[str, Samples] = {"counter": {}, "histogram": {}}
    for done in range(0, rounds, CALLS_ROUNDS_OF_A_PROCESS):
        with ExitStack() as stack:
            place = stack.enter_context(_places())  # left last, after the processes
            # Both of ours in one process: what differs is then the memory, not where the code happens to lie.
            processes = {name: stack.enter_context(_process(name, place())) for name in (FILE, SINGLE, MULTI, OTEL)}
            processes[MEMORY] = processes[FILE]
            for kind, samples in found.items():
                turns = {
                    f"{name}, {way}": processes[name].turn(f"call {int(name == MEMORY)} {calls} {kind} {way}")
                    for name in (FILE, MEMORY, SINGLE, MULTI, OTEL)
                    for way in ("by labels", "bound")
                    if f"{kind} {way}" in _statements(name)
                }
                for row, times in interleaved(turns, min(CALLS_ROUNDS_OF_A_PROCESS, rounds - done)).items():
                    samples.setdefault(row, []).extend(times)
    tables = []
    for kind, samples in found.items():
        cost = {row: Spread.of(times) for row, times in samples.items()}
        budgets = _budgets(*(_COUNTER if kind == "counter" else _HISTOGRAM))
        by_labels, bound = compared(cost, BY_LABELS, budgets), compared(cost, BOUND, budgets)
        bounds = ", eight bounds" if kind == "histogram" else ""
        table = Table(
            f"{kind.capitalize()} in a shared file, four labels{bounds}",
            ("candidate", "ns a call (quartiles)", "to ours by labels", "to ours bound", "budget"),
        )
        for row, spread in cost.items():
            verdict = by_labels[row][1] + bound[row][1]
            table.rows.append((row, str(spread), by_labels[row][0], bound[row][0], verdict))
        table.notes.append(f"{rounds} interleaved rounds of {calls:,} calls, net of the empty loop of the same round.")
        tables.append(table)
    return tables


def _statements(candidate: str) -> dict[str, str]:
    return STATEMENTS[candidate.partition(",")[0]]


# -- the life of a process --

LIFE = {
    "fork, in anonymous memory": "fork 1",
    "fork, into a file of its own": "fork 0",
    "join a server": "join",
    "fold what a dead worker left": "fold",
}


def _life(rounds: int) -> Table:
    with ExitStack() as stack:
        place = stack.enter_context(_places())  # left last, after the processes
        file = stack.enter_context(_process(FILE, place()))
        memory = stack.enter_context(_process(MEMORY, place()))
        for process in (file, memory):
            process.ask("fill 1")
        runs = {row: (memory if row.endswith("memory") else file).turn(line) for row, line in LIFE.items()}
        found = interleaved(runs, rounds)
    table = Table(f"The life of a process with {SERIES:,} histogram series", ("candidate", "ms (quartiles)"))
    for row, times in found.items():
        table.rows.append((row, str(Spread.of(times))))
    table.notes.append(
        f"{rounds} interleaved rounds. A fork: from the call to the child's first statement. Folding reads a worker's "
        "file for the first time, adds it to the sum of the earlier ones and writes that. No budget."
    )
    return table


# -- a process --


class Candidate:
    """What all have: an instrument filled, a text of it, calls that are counted."""

    text: Callable[[], str]

    def fill(self, times: int) -> None:
        raise NotImplementedError

    def calls(self) -> dict[str, Any]:
        """Names for ``STATEMENTS``; ``counts``: of counter and histogram, what was recorded."""
        raise NotImplementedError


def measurements() -> Iterator[tuple[dict[str, str], float]]:
    """What every process records, ``times`` over."""
    for n in range(SERIES):
        labels = {"method": "GET", "route": f"/api/shops/{{shop}}/route-{n}", "environment": "bench"}
        for k in range(1, 4):
            yield labels, 0.007 * (n % 11) * k


class _Ours(Candidate):
    def __init__(self, candidate: str, place: str) -> None:
        self.place = place if candidate == FILE else None
        self.recorder, self.workers = self.joined(self.place)
        self.collect = self.workers.collect if candidate == FILE else self.recorder.collect
        from relay_otel.export.exposition import Access, MetricsEndpoint

        self.text = MetricsEndpoint(self.collect, Access()).text

    def joined(self, place: str | None, *, times: int = 0) -> tuple[Recorder, Workers]:
        from relay_otel import runtime
        from relay_otel.export.workers import Workers
        from relay_otel.recording import Recorder

        recorder = Recorder()
        recorder.environment = "bench"
        if times:
            _fill(recorder, times)
        server = None
        if place is not None:
            server = runtime.join(
                "bench", place, "bench", {}, lambda found: recorder.join(found.make_file, found.admitted)
            )
            assert recorder.cells.file is not None
        return recorder, Workers(recorder, server)

    def fill(self, times: int) -> None:
        _fill(self.recorder, times)

    def calls(self) -> dict[str, Any]:
        recorder = self.recorder
        counter = recorder.define("counter", "orders", labels=CALL_LABELS)
        histogram = recorder.define("histogram", "checkout", labels=CALL_LABELS, unit="s", bounds=BOUNDS)

        def counts() -> tuple[float, float]:
            cells = {family.definition.name: family.points[0].cells for family in recorder.collect() if family.points}
            return sum(cells["orders_total"]), sum(cells["checkout_seconds"][1:])

        return {
            "counter": counter,
            "counter_bound": counter.bind(**VALUES),
            "histogram": histogram,
            "histogram_bound": histogram.bind(**VALUES),
            "counts": counts,
        }

    def fork(self) -> float:
        read, write = os.pipe()
        gc.collect()
        started = time.perf_counter()
        if (child := os.fork()) == 0:
            os.write(write, repr(time.perf_counter()).encode())
            os._exit(0)
        os.waitpid(child, 0)
        began = float(os.read(read, 100))
        os.close(read)
        os.close(write)
        return (began - started) * 1e3

    def join(self) -> float:
        """Of a recorder that has all its series already, to a server that others have joined."""
        from relay_otel.recording import Recorder

        recorder = Recorder()
        recorder.environment = "bench"
        _fill(recorder, 1)
        server = self.workers.server
        assert server is not None
        gc.collect()
        started = time.perf_counter()
        joined = recorder.join(server.make_file, server.admitted)
        taken = time.perf_counter() - started
        assert joined
        recorder.cells.leave()
        return taken * 1e3

    def fold(self) -> float:
        self.workers.fold()  # of whatever other deeds left
        self.fork()
        gc.collect()
        started = time.perf_counter()
        self.workers.fold()
        taken = time.perf_counter() - started
        server = self.workers.server
        assert server is not None and len(server.workers(server.names())) == 1, "the dead worker was not folded"
        return taken * 1e3


def _fill(recorder: Recorder, times: int) -> None:
    ours = recorder.define("histogram", NAME, labels=LABELS[:2], unit="s", bounds=BOUNDS, limit=SERIES + 1)
    for _ in range(times):
        for labels, seconds in measurements():
            ours.bind(**labels).record(seconds)


class _Client(Candidate):
    def __init__(self, candidate: str, place: str) -> None:
        import prometheus_client
        from prometheus_client import multiprocess

        self.registry = prometheus_client.CollectorRegistry()
        shown = self.registry
        if candidate == MULTI:
            shown = prometheus_client.CollectorRegistry()
            multiprocess.MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
        self.text = lambda: prometheus_client.generate_latest(shown).decode()
        self.shown = shown

    def fill(self, times: int) -> None:
        import prometheus_client

        histogram = prometheus_client.Histogram(NAME, "", LABELS, buckets=BOUNDS, registry=self.registry)
        for _ in range(times):
            for labels, seconds in measurements():
                histogram.labels(**labels).observe(seconds)

    def calls(self) -> dict[str, Any]:
        import prometheus_client

        counter = prometheus_client.Counter("orders_total", "Orders.", CALL_LABELS, registry=self.registry)
        histogram = prometheus_client.Histogram(
            "checkout_seconds", "Time.", CALL_LABELS, buckets=BOUNDS, registry=self.registry
        )
        return {
            "counter": counter,
            "counter_bound": counter.labels(**VALUES),
            "histogram": histogram,
            "histogram_bound": histogram.labels(**VALUES),
            "counts": lambda: tuple(
                self.shown.get_sample_value(name, VALUES) for name in ("orders_total", "checkout_seconds_count")
            ),
        }


class _Otel(Candidate):
    def __init__(self, candidate: str, place: str) -> None:
        import prometheus_client
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from opentelemetry.sdk.metrics import MeterProvider

        registry = prometheus_client.CollectorRegistry()
        self.registry = registry
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
        self.meter = MeterProvider([reader]).get_meter("bench")
        self.text = lambda: prometheus_client.generate_latest(registry).decode()

    def fill(self, times: int) -> None:
        name = NAME.removesuffix("_seconds")
        histogram = self.meter.create_histogram(name, unit="s", explicit_bucket_boundaries_advisory=BOUNDS)
        for _ in range(times):
            for labels, seconds in measurements():
                histogram.record(seconds, labels)

    def calls(self) -> dict[str, Any]:
        return {
            "counter": self.meter.create_counter("orders"),
            "histogram": self.meter.create_histogram("checkout", unit="s", explicit_bucket_boundaries_advisory=BOUNDS),
            "counts": lambda: tuple(
                self.registry.get_sample_value(name, VALUES) for name in ("orders_total", "checkout_seconds_count")
            ),
        }


CANDIDATES: dict[str, Callable[[str, str], Candidate]] = {
    FILE: _Ours,
    MEMORY: _Ours,
    SINGLE: _Client,
    MULTI: _Client,
    OTEL: _Otel,
}


def work(candidate: str, place: str) -> None:
    """Do what each line on stdin says, and print what it took."""
    this = CANDIDATES[candidate](candidate, place)
    names: dict[bool, dict[str, Any]] = {}
    called: dict[tuple[bool, str], int] = {}
    for line in sys.stdin:
        deed, *rest = line.split()
        result = ""
        match deed:
            case "fill":
                this.fill(int(rest[0]))
                gc.collect()
            case "scrape":
                gc.collect()  # nobody pays for what another left behind
                started = time.perf_counter()
                this.text().encode()
                result = str((time.perf_counter() - started) * 1e3)
            case "text":
                Path(rest[0]).write_text(this.text(), encoding="utf-8")
                result = rest[0]
            case "call":
                memory, calls, kind, way = rest[0] == "1", int(rest[1]), rest[2], " ".join(rest[3:])
                if memory not in names:
                    names[memory] = (CANDIDATES[MEMORY](MEMORY, place) if memory else this).calls()
                statement = _statements(candidate)[f"{kind} {way}"]
                if (memory, statement) not in called:
                    timeit.Timer(statement, globals=names[memory]).timeit(calls)  # the first makes the series
                    called[memory, statement] = calls
                loop = timeit.Timer("pass").timeit(calls)
                result = str((timeit.Timer(statement, globals=names[memory]).timeit(calls) - loop) / calls * 1e9)
                called[memory, statement] += calls
            case "fork" | "join" | "fold":
                assert isinstance(this, _Ours)
                result = str(getattr(this, deed)())
        print(result, flush=True)
    for memory, found in names.items():  # what records nothing is fast
        expected = tuple(
            sum(number for (where, statement), number in called.items() if where == memory and kind in statement)
            for kind in ("counter", "histogram")
        )
        assert tuple(found["counts"]()) == expected, f"{candidate} recorded {found['counts']()} of {expected} calls"


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2])
