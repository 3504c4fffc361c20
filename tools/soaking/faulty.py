"""Seconds and a seed in; an app under mixed traffic while everything around it fails by chance, and the verdict, out.

The faults are those of tools/faults/registry.py that need nothing between app and collector. What must stay flat is
judged by the calm between them.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import count as count_up
from typing import Self

import psycopg

from tools.faults.evidence import SLACK_SECONDS, Evidence, Round, Series
from tools.faults.fault import Fault
from tools.faults.play import Load, count, happen, take
from tools.faults.registry import FAULTS
from tools.faults.rig import BROWSER_SECONDS, Rig, Wiring
from tools.process import StackError, await_
from tools.soaking.app import LEAK
from tools.soaking.clients import UNANSWERED, ask
from tools.soaking.look import KB, MB, Sample
from tools.soaking.run import said, watch
from tools.soaking.verdict import Allowed, Finding, Run, after_warm_up, finding, flat

WIRING = Wiring(clock=True)
THREADS = 4  # that ask without a pause, beside the steady load and the browsers
PAUSE_SECONDS = 5.0, 15.0
FAULT_SECONDS = 2.0, 10.0
CALM_SECONDS = 5.0
"""After a healing until things are as before."""
TURN_SECONDS = 5.0
"""The clients are looked after so often."""
SETTLE_SECONDS = 60.0
DRAIN_SECONDS = 20.0
BETWEEN_FAULTS = Allowed(memory=8 * MB, descriptors=20.0, directory=512 * KB, files=4.0, series=30.0)
"""A fault brings series of its own (a 503, a reason), and code that had not run yet."""

Happened = list[tuple[Fault, Round]]


def drawn(chance: random.Random) -> Iterator[Fault]:
    """All that can happen, each once, in an order by chance; then again."""
    while True:
        faults = [fault for fault in FAULTS if fault.wiring in (WIRING, Wiring())]
        chance.shuffle(faults)
        yield from faults


def soak_with_faults(seconds: float, seed: int, *, leak: bool) -> tuple[Run, list[Finding]]:
    """Serve, ask, scrape, look and break for ``seconds``.

    Raises:
        StackError: something could not be started, broken or healed.
    """
    chance = random.Random(seed)
    run, happened = Run(seconds=seconds), Happened()
    environment = {LEAK: "1"} if leak else {}
    with Rig(WIRING, "tools.soaking.mixed:create_app()", environment) as rig:
        before, evidence = count(rig), Evidence(FAULTS[0])
        lines = rig.folder / "load"
        directory = rig.chamber.inside("runtime", rig.app.pid)
        with Load(rig.app.port, lines, DRAIN_SECONDS) as load, _Asking(run, rig.app.port, seed) as asking:
            watching = threading.Thread(target=watch, args=(run, rig.app.port, rig.app.pid, directory, asking.goes_on))
            watching.start()
            _break(rig, load, chance, seconds, happened)
            asking.stop()
            watching.join()
            load.stop()
        evidence.read(lines)
        evidence.deaths = rig.deaths
        evidence.fault = replace(FAULTS[0], hits=frozenset().union(*(fault.hits for fault, _ in happened)))

        def arrived() -> bool:
            take(evidence, before, count(rig))
            return not _lost(run, evidence) and not evidence.rows_lost()

        with suppress(StackError, OSError, psycopg.Error):  # what is missing is judged
            await_(arrived, "something is missing", SETTLE_SECONDS)
        rig.prometheus.wait_scrape("collector-apps")
        rig.prometheus.wait_scrape("collector-browser", since=time.time() + BROWSER_SECONDS + SLACK_SECONDS)
        take(evidence, before, count(rig))
        run.told = said(rig.app)
    return run, _judge(run, evidence, happened)


class _Asking:
    """Clients without a pause, in a process of their own, until they are stopped: they write into the run's book."""

    def __init__(self, run: Run, port: int, seed: int) -> None:
        self._run, self._port, self._seed = run, port, seed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def goes_on(self) -> bool:
        return not self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self) -> None:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            for number in count_up():
                if self._stop.is_set():
                    return
                self._run.book += pool.submit(ask, self._port, TURN_SECONDS, self._seed + number, THREADS).result()


def _break(rig: Rig, load: Load, chance: random.Random, seconds: float, happened: Happened) -> None:
    """One fault after the other, as long as there is time for another."""
    end = time.monotonic() + seconds
    for fault in drawn(chance):
        pause, lasts = chance.uniform(*PAUSE_SECONDS), chance.uniform(*FAULT_SECONDS)
        if time.monotonic() + pause + lasts + CALM_SECONDS > end:
            load.wait(max(0.0, end - time.monotonic()))
            return
        load.wait(pause)
        print(f"{time.strftime('%H:%M:%S')} {fault.name} for {lasts:.1f} s", flush=True)
        happened.append((fault, happen(rig, fault, load, lasts)))
        load.wait(CALM_SECONDS)


def _book(run: Run, evidence: Evidence) -> Counter[Series]:
    """Of both kinds of clients."""
    book = evidence.book()
    for entry, number in run.book.items():
        if entry != UNANSWERED:
            book[(entry.method, entry.endpoint, entry.status)] += number
    return book


def _lost(run: Run, evidence: Evidence) -> float:
    return sum(max(0.0, number - evidence.shown.get(series, 0)) for series, number in _book(run, evidence).items())


def _doubled(run: Run, evidence: Evidence, unanswered: int) -> float:
    book = _book(run, evidence)
    more = sum(max(0.0, number - book[series]) for series, number in evidence.shown.items())
    return max(0.0, more - unanswered)


def _judge(run: Run, evidence: Evidence, happened: Happened) -> list[Finding]:
    """What must stay flat, by the calm between faults; and the books."""
    findings = flat(
        _calm(after_warm_up(run.samples), happened), replace(BETWEEN_FAULTS, processes=2 * len(evidence.deaths))
    )
    each = [(fault, replace(evidence, fault=fault, rounds=[its])) for fault, its in happened]
    browsers = sum(fault.limits.browsers.most(its) for fault, its in each)
    rows = max((fault.limits.ledger.most(evidence) for fault, _ in each), default=0)
    # Of each thread one that was being answered, and one on a connection that the worker hung up.
    under_way = max((fault.limits.errors.most(evidence) for fault, _ in each), default=0)
    died = under_way + 2 * THREADS * len(evidence.deaths)
    unanswered = run.book[UNANSWERED] + sum(not ask_.status for ask_ in evidence.asks)
    failed = run.book[UNANSWERED] + len(evidence.errors())
    for what, number, most in (
        ("requests that failed", failed, died),
        ("counts lost by servers", _lost(run, evidence), 0),
        ("counts that nobody made", _doubled(run, evidence, unanswered), 0),
        ("clicks lost by browsers", evidence.browsers_lost(), browsers),
        ("clicks that nobody made", evidence.browsers_doubled(), 0),
        ("rows lost in the ledger", evidence.rows_lost(), rows),
        ("rows that nobody logged", evidence.rows_doubled(), 0),
    ):
        findings.append(finding(what, "", "", number, most, form="{:g}"))
    total = round(sum(evidence.shown.values()))
    findings.append(finding("counted in all", _book(run, evidence).total(), total, 0, 0))
    findings.append(finding("faults", "", len(happened), 0 if happened else 1, 0))
    return findings


def _calm(samples: Sequence[Sample], happened: Happened) -> list[Sample]:
    """Those at which nothing is broken or has just been."""
    offset = time.time() - time.monotonic()
    spans = [(its.began - 1, its.healed + CALM_SECONDS) for _, its in happened]
    calm = [each for each in samples if not any(begin <= each.at + offset <= end for begin, end in spans)]
    if len(calm) < 2:
        raise StackError(f"{len(calm)} seconds were without a fault, too few to judge; give a longer --for.")
    return calm
