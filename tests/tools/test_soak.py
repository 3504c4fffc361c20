"""The soak's verdict: what it lets pass, what it does not, and that an app that leaks fails it."""

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tools.faults.registry import FAULTS
from tools.process import ROOT, StackError
from tools.soaking import faulty, look, verdict
from tools.soaking.clients import UNANSWERED, Book, Entry
from tools.soaking.look import KB, MB, Memory, Sample
from tools.soaking.verdict import Run

ITEMS = Entry("GET", "/items/{item}", "200")
SECONDS = 600


def run_of(each: Callable[[int], dict[str, Any]] = lambda second: {}, **at_the_end: Any) -> Run:
    """A good soak of two processes, but for what ``each`` second and the end say."""
    sample = Sample(0.0, {1: Memory(30 * MB, 20 * MB), 2: Memory(60 * MB, 50 * MB)}, 40, 300 * KB, 6, 0.0)
    samples = [replace(sample, **{"at": 7.0 + n, "requests": 10.0 * n} | each(n)) for n in range(SECONDS)]
    book = Book({ITEMS: 6000})
    run = Run(samples, [0.01] * SECONDS, seconds=SECONDS, book=book, scraped=book.copy(), pushed=book.copy())
    for name, value in at_the_end.items():
        setattr(run, name, value)
    return run


def faults(run: Run) -> list[str]:
    return [finding.what for finding in verdict.judge(run) if not finding.well]


def memory(shared: float) -> dict[str, Any]:
    return {"memory": {1: Memory(30 * MB, 20 * MB), 2: Memory(60 * MB, int(shared))}}


# -- memory --


def test_what_stays_is_well() -> None:
    """Flat memory, descriptors and directory, nothing in flight, equal books: nothing is found."""
    assert [] == faults(run_of())


def test_memory_that_grows_steadily_is_found() -> None:
    """8 kB more each second are 3.8 MB over the 8 minutes that are judged, of the process that keeps them only."""
    assert ["memory of 2, MB"] == faults(run_of(lambda second: memory(50 * MB + second * 8 * KB)))


def test_memory_that_grows_less_than_its_trend_can_tell_passes() -> None:
    """2 kB a second stay below the 2 MB that are allowed."""
    assert [] == faults(run_of(lambda second: memory(50 * MB + second * 2 * KB)))


def test_noise_alone_passes() -> None:
    """A second may be several megabytes off, by chance or as a garbage collector's sawtooth: the trend is judged."""
    chance = random.Random(5)
    assert [] == faults(run_of(lambda second: memory(50 * MB + chance.gauss(0, 3 * MB))))
    assert [] == faults(run_of(lambda second: memory(50 * MB + second % 20 * 300 * KB)))


def test_growth_below_noise_is_found() -> None:
    """The same noise does not hide a leak of 4 MB."""
    chance = random.Random(5)
    noisy = run_of(lambda second: memory(50 * MB + second * 9 * KB + chance.gauss(0, 3 * MB)))
    assert ["memory of 2, MB"] == faults(noisy)


def test_the_warm_up_is_not_judged() -> None:
    """What a process takes in the first fifth, and keeps, is no growth; the same an hour later is."""
    assert [] == faults(run_of(lambda second: memory((20 + 30 * min(1, second / 100)) * MB)))
    assert ["memory of 2, MB"] == faults(run_of(lambda second: memory((20 + 30 * min(1, second / 400)) * MB)))


def test_memory_that_shrinks_is_well() -> None:
    """Only growth is a fault."""
    assert [] == faults(run_of(lambda second: memory(50 * MB - second * 20 * KB)))


# -- everything else --


@pytest.mark.parametrize(
    ("each", "found"),
    [
        (lambda second: {"descriptors": 40 + second // 60}, "descriptors"),
        (lambda second: {"directory": 300 * KB + second * 256}, "runtime directory, kB"),
        (lambda second: {"files": 6 + second // 200}, "its files"),
        (lambda second: {"series": 300 + second // 100}, "series"),
        (lambda second: {"requests": 0.0 if second == 300 else 10.0 * second}, "steps back of the total"),
        (lambda second: {"memory": {1: Memory(1, 1), 2 + second // 300: Memory(1, 1)}}, "processes"),
    ],
)
def test_what_grows_or_changes_is_found(each: Callable[[int], dict[str, Any]], found: str) -> None:
    """A descriptor a minute, a directory, its files or series that grow, a total that steps back once, a worker that
    died."""
    assert [found] == faults(run_of(each))


def test_connections_that_come_and_go_are_no_leak() -> None:
    """The number of descriptors goes up and down with the clients' connections."""
    chance = random.Random(5)
    assert [] == faults(run_of(lambda second: {"descriptors": 40 + chance.randrange(-12, 13)}))


def test_the_end_is_judged() -> None:
    """Something in flight after the traffic, a request without answer, a failed scrape: each is a fault."""
    assert ["in flight at the end"] == faults(run_of(in_flight=1.0))
    assert ["requests without an answer"] == faults(run_of(book=Book({ITEMS: 6000, UNANSWERED: 1})))
    assert ["scrapes that failed"] == faults(run_of(failed_scrapes=["TimeoutError: timed out"]))


def test_totals_must_be_equal_row_by_row() -> None:
    """One request too few is a fault, and so are two books of equal sums with other rows."""
    other = Book({ITEMS: 5999, Entry("GET", "unmatched", "404"): 1})
    assert ["total by /metrics"] == faults(run_of(scraped=Book({ITEMS: 5999})))
    assert ["total by OTLP"] == faults(run_of(pushed=Book({ITEMS: 6001})))
    assert ["total by /metrics", "total by OTLP"] == faults(run_of(scraped=other, pushed=other))


def test_too_few_seconds_are_no_verdict() -> None:
    """A soak of a few seconds says so, instead of finding all well."""
    with pytest.raises(StackError, match="give --for at least 15"):
        verdict.judge(Run(run_of().samples[:9]))


# -- what it looks with --


def test_growth_is_the_slope_of_the_best_line() -> None:
    """The fitted line's end minus its beginning, not the last value minus the first."""
    assert 20.0 == pytest.approx(verdict.growth([0, 1, 2, 3, 4], [0, 5, 10, 15, 20]))
    assert 0.0 == pytest.approx(verdict.growth([0, 1, 2, 3, 4], [5, 0, 9, 0, 5]))
    assert 0.0 == verdict.growth([3], [7])


def test_percentiles_are_values_that_were_seen() -> None:
    """The smallest that the share does not exceed."""
    hundred = [float(n) for n in range(100, 0, -1)]
    assert (50.0, 99.0, 100.0) == tuple(verdict.percentile(hundred, share) for share in (0.5, 0.99, 1))
    assert (3.0, 0.0) == (verdict.percentile([3.0], 0.99), verdict.percentile([], 0.5))


def test_books_are_read_from_both_formats() -> None:
    """Text and OpenMetrics, with exemplars, of the one path and the other (which adds labels)."""
    text = (
        "# TYPE http_requests_total counter\n"
        'http_requests_total{method="GET",endpoint="/items/{item}",status_code="200",environment="soak"} 6.0\n'
        'http_requests_total{endpoint="/items/{item}",environment="soak",job="soak",method="GET",status_code="200"} 1\n'
        'http_requests_total{method="GET",endpoint="unmatched",status_code="404"} 2.0 # {trace_id="a"} 1.0 1.5\n'
        'http_requests_total{method="GET",endpoint="/",status_code="200",environment="soak"} 0.0\n'
        'http_requests_in_flight{method="GET",endpoint="/",environment="soak"} 2.0\n'
        'http_requests_in_flight{method="POST",endpoint="/",environment="soak"} 1.0\n'
    )
    assert (Book({ITEMS: 7, Entry("GET", "unmatched", "404"): 2}), 3.0) == (look.counted(text), look.in_flight(text))


def test_a_process_is_looked_at_with_its_children() -> None:
    """Memory and descriptors of a server are those of its parent and all below it."""
    child = "import sys; print(flush=True); sys.stdin.read()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        parent.stdout.readline()
        seen = look.look(parent.pid, ROOT / "contract", 5.0)
        parent.stdin.close()
    assert (2, parent.pid, 5.0) == (len(seen.memory), min(seen.memory), seen.requests)
    assert all(memory.resident > memory.shared > MB for memory in seen.memory.values())
    assert seen.descriptors >= 2 * 3 and seen.files >= 2 and seen.directory >= 8 * KB
    assert os.getpid() not in seen.memory


def test_the_verdict_is_a_table() -> None:
    """A row each with begin, end, growth and what is allowed; then requests a second and the scrapes."""
    run = run_of(lambda second: memory(50 * MB + second * 8 * KB))
    run.told = ["relay-otel: something."]
    lines = [*verdict.table(verdict.judge(run)).splitlines(), *verdict.told(run).splitlines()]

    assert [
        "begin end grown allowed",
        "processes 2 2 0 came or went 0 ok",
        "memory of 1, MB 30.0 30.0 0.0 2.0 ok",
        "memory of 2, MB 60.0 60.0 3.7 2.0 NOT WELL",
        "descriptors 40 40 +0.0 5 ok",
    ] == [" ".join(line.split()) for line in lines[:5]]
    assert [
        "10 requests/s for 600 s, 6,000 in all",
        "600 scrapes under load, p50 10.0 ms, p99 10.0 ms",
        "relay-otel: something.",
    ] == lines[-3:]


def test_series_are_the_lines_without_comments() -> None:
    """Names and values; not their help, type or end."""
    assert 2 == look.lines('# HELP a b\n# TYPE a counter\na 1\nb{c="d"} 2\n# EOF\n')


# -- faults by chance --


def test_each_fault_happens_once_before_one_comes_again() -> None:
    """The same seed, the same order; another one, another. What needs a cable or a relay of its own is left out."""
    able = {fault.name for fault in FAULTS} - {"collector-slow", "network-cut"}

    def names(seed: int) -> list[str]:
        return [fault.name for fault in itertools.islice(faulty.drawn(random.Random(seed)), len(able))]

    assert able == set(names(1)) == set(names(2))
    assert names(1) == names(1) != names(2)


# -- the whole --


def soaked(*arguments: str) -> tuple[int, dict[str, str]]:
    """Exit status and the verdict by row."""
    done = subprocess.run(
        [sys.executable, "tools/soak.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    rows = [line.split("  ") for line in done.stdout.splitlines() if line.endswith(("  ok", "  NOT WELL"))]
    assert rows, done.stdout + done.stderr
    print(done.stdout)
    return done.returncode, {row[0].strip(): row[-1].strip() for row in rows}


@pytest.mark.slow
def test_half_a_minute_under_load_is_well() -> None:
    """Four workers under full load and scrapes each second keep nothing, and every number is right."""
    status, rows = soaked("--for", "30")
    assert (0, {"ok"}) == (status, set(rows.values())), rows


@pytest.mark.slow
def test_an_app_that_leaks_fails() -> None:
    """The negative control: memory, descriptors, requests in flight and files that an app keeps are all found."""
    status, rows = soaked("--for", "30", "--leak")
    found = {what for what, word in rows.items() if word != "ok"}
    wanted = {"descriptors", "runtime directory, kB", "its files", "in flight at the end", "total by /metrics"}
    assert (1, wanted) == (status, wanted & found), rows
    assert 4 == len([what for what in found if what.startswith("memory of ")]), rows


@pytest.mark.slow
def test_a_minute_of_faults_is_well() -> None:
    """Mixed traffic and browsers while two faults or three happen by chance: totals are exact, nothing grows."""
    status, rows = soaked("--for", "60", "--faults", "--seed", "3")
    assert (0, {"ok"}) == (status, set(rows.values())), rows
