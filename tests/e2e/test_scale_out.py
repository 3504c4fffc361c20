"""Several collectors on one machine: what apps and browsers sent is in Prometheus once, while one of them is killed."""

from __future__ import annotations

import http.client
import json
import math
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.apps import SERVICE, App, Fleet, Sender
from tests.browsers import Client, Crowd, Key, Truth
from tests.e2e.conftest import JOB, Book, client_of, in_prometheus
from tests.e2e.test_browsers import EVERYWHERE, LISTED, Between, differences
from tools.process import (
    DEADLINE_SECONDS,
    HOST,
    ROOT,
    Process,
    answers,
    await_,
    clean_environment,
    fetch,
    free_port,
    new_folder,
    tool,
)
from tools.scale import LoadBalancer, all_targets
from tools.stack import Collector, Prometheus, PrometheusApi, Server, uvicorn
from tools.totals import totals

BALANCER = "deploy/scale/loadbalancer.yaml"
MOVING = ("--config", "deploy/scale/moving.yaml")
SCRAPE_SECONDS = 0.5
ENDED = 5
"""Servers of the killed collector that end while it is dead."""
FIRST = 2
"""Of the three collectors, those that are there from the start where the tier grows."""


@dataclass
class Tier:
    """Load balancers, the collectors behind them, and who scrapes all."""

    balancers: list[LoadBalancer]
    collectors: list[Collector]
    prometheus: Prometheus

    @property
    def ports(self) -> list[int]:
        return [each.port for each in self.balancers]

    def holders(self) -> dict[str, list[int]]:
        """By server, the places of the collectors that show its series."""
        found: dict[str, list[int]] = {}
        for place, collector in enumerate(self.collectors):
            for instance in set(re.findall(r'[{,]instance="([^"]*)"', fetch(collector.prometheus_url))):
                found.setdefault(instance, []).append(place)
        return found


@contextmanager
def tier(
    *,
    collectors: int = 3,
    balancers: int = 2,
    first: int | None = None,
    overlay: Sequence[str] = (),
    config: str = BALANCER,
    interval: float = SCRAPE_SECONDS,
) -> Iterator[Tier]:
    """All of it, as it lies.

    Args:
        first: how many of the collectors the balancers know; all unless given.
        overlay: more words for the collectors.
        config: another one for the balancers.
        interval: seconds between scrapes, and the longest that one may take.
    """
    with ExitStack() as stack:
        behind = [Collector() for _ in range(collectors)]
        for each in behind:
            each.command += overlay
            stack.enter_context(each)
        before = [stack.enter_context(LoadBalancer(behind[:first], config=config)) for _ in range(balancers)]
        prometheus = stack.enter_context(Prometheus(targets=all_targets(behind), interval=interval))
        yield Tier(before, behind, prometheus)


def counted(prometheus: PrometheusApi) -> dict[tuple[str, str], int]:
    """Requests of the fleet by instance and status."""
    selector = f'http_requests_total{{job="{SERVICE}"}}'
    found = totals(prometheus, selector, ("instance", "status_code"))
    return {(instance, status): int(n) for (instance, status), n in found.items()}


def timed(prometheus: PrometheusApi) -> int:
    """The same in all, by the histogram."""
    return int(sum(totals(prometheus, f'http_request_duration_seconds_count{{job="{SERVICE}"}}').values()))


def shows(prometheus: Prometheus, fleet: Fleet) -> None:
    """Wait until Prometheus has counted what the fleet has, and two scrapes later still does."""
    await_(lambda: counted(prometheus) == fleet.book, lambda: f"{difference(prometheus, fleet)}; no equality")
    for _ in range(2):
        prometheus.wait_scrape("collector-apps")
    assert counted(prometheus) == fleet.book
    assert timed(prometheus) == sum(fleet.book.values())


def difference(prometheus: PrometheusApi, fleet: Fleet) -> str:
    found = counted(prometheus)
    wrong = [key for key, n in fleet.book.items() if found.get(key) != n]
    return f"Prometheus counted {sum(found.values())} of {sum(fleet.book.values())}, {len(wrong)} series differ"


def until(prometheus: PrometheusApi, scrapes: int = 3) -> Callable[[], bool]:
    """Asked again and again: whether every collector was scraped so often since."""
    seen: dict[str, set[str]] = {}

    def over() -> bool:
        targets = prometheus.targets("collector-apps")
        for target in targets:
            seen.setdefault(target["scrapeUrl"], set()).add(target["lastScrape"])
        # The first that is seen was made before.
        return bool(targets) and min(map(len, seen.values())) > scrapes

    return over


# -- apps --


def test_no_count_is_lost_or_doubled_while_a_collector_is_killed() -> None:
    """A hundred servers and two real apps export through two load balancers to three collectors. One of the three is
    killed with SIGKILL and comes back. Every total is exact, that of servers which ended meanwhile too, and each
    server's series are with one collector only."""
    with tier() as running, ExitStack() as stack:
        apps = [stack.enter_context(shop(balancer)) for balancer in running.balancers]
        book = Book()
        fleet = Fleet(100, running.ports)
        victim = running.collectors[1]

        def visit() -> None:
            for app in apps:
                with client_of(app) as client:
                    book.visit(client)

        fleet.run(until(running.prometheus))
        visit()
        held = sorted(server for server, places in running.holders().items() if places == [1] and "app-" in server)
        assert len(held) > ENDED, "the servers are not spread"
        victim.kill()
        visit()
        ended = Fleet(0, running.ports)
        ended.apps = [app for app in fleet.apps if app.instance in held[:ENDED]]
        # Their last word, to a tier of which their own collector is dead.
        ended.round(0, last=True)
        fleet.apps = [app for app in fleet.apps if app not in ended.apps]
        fleet.run(until(running.prometheus, scrapes=2))
        victim.start()
        fleet.run(until(running.prometheus))
        visit()
        fleet.round(0, last=True)
        for app in apps:
            app.stop()

        fleet.apps += ended.apps
        shows(running.prometheus, fleet)
        assert {len(places) for places in running.holders().values()} == {1}
        await_(
            lambda: in_prometheus(running.prometheus) == book.rows, "the real apps' requests are not what clients saw"
        )


@contextmanager
def shop(balancer: LoadBalancer) -> Iterator[Server]:
    settings = {
        "OTEL_SERVICE_NAME": JOB,
        "OTEL_EXPORTER_OTLP_ENDPOINT": balancer.otlp_endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "RELAY_STAGE": "test",
    }
    with Server(uvicorn("tests.e2e.shop:app", wrapper=True), environment=settings) as server:
        yield server


def test_collectors_behind_a_plain_balancer_count_wrong() -> None:
    """Negative control: the same fleet, each export to the next collector. Each collector shows the last total that it
    saw, Prometheus takes an older one for a counter that began anew, and counts several times what there was."""
    with tier(balancers=0) as running:
        fleet = Fleet(20, [each.port for each in running.collectors], restless=True)
        fleet.run(until(running.prometheus, scrapes=4))
        fleet.round(0, last=True)
        running.prometheus.wait_scrape("collector-apps")

        assert sum(counted(running.prometheus).values()) > 1.5 * sum(fleet.book.values())
        assert {len(places) for places in running.holders().values()} == {3}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["while it runs", "while it runs, with moving.yaml", "restarted"])
def test_a_tier_that_grows(how: str) -> None:
    """From two collectors to three. While it runs a third of the servers move and their former collector goes on to
    show what it had: counted several times, unless samples say when they were sent (moving.yaml). With balancers
    stopped, collectors restarted and balancers started with the new list, everything is exact as it lies."""
    overlay = MOVING if "moving" in how else ()
    with tier(first=FIRST, overlay=overlay) as running:
        fleet = Fleet(30, running.ports)
        fleet.run(until(running.prometheus))
        if how == "restarted":
            for balancer in running.balancers:
                balancer.stop()
            fleet.round(0)  # nobody takes it
            for collector in running.collectors[:FIRST]:
                collector.restart()
            for balancer in running.balancers:
                balancer.behind(running.collectors)
                balancer.start()
        else:
            for balancer in running.balancers:
                balancer.stop()
                balancer.behind(running.collectors)
                balancer.start()
        fleet.run(until(running.prometheus, scrapes=4))
        fleet.round(0, last=True)

        if how == "while it runs":
            running.prometheus.wait_scrape("collector-apps")
            assert sum(counted(running.prometheus).values()) > 1.5 * sum(fleet.book.values())
        else:
            shows(running.prometheus, fleet)
        copies = sum(len(places) - 1 for places in running.holders().values())
        assert (copies == 0) is (how == "restarted")


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [(), MOVING], ids=["as it lies", "with moving.yaml"])
def test_an_older_total_that_a_restarted_collector_hears_of_late(overlay: Sequence[str]) -> None:
    """What waited in one balancer while a newer export came by way of another, was scraped, and the collector died: to
    Prometheus the series began anew. So an app keeps to one balancer, or samples say when they were sent."""
    with tier(collectors=1, balancers=0, overlay=overlay) as running:
        [collector], fleet = running.collectors, Fleet(1, [running.collectors[0].port])
        [app] = fleet.apps
        sender = Sender(fleet.ports)
        app.work()
        waited = app.export()
        fleet.round(0)
        await_(lambda: counted(running.prometheus) == fleet.book, "the newer total does not come")
        collector.restart()
        assert sender.try_(collector.port, waited)
        sender.close()
        running.prometheus.wait_scrape("collector-apps")
        fleet.round(0)
        running.prometheus.wait_scrape("collector-apps")

        assert (counted(running.prometheus) == fleet.book) is bool(overlay)


@pytest.mark.parametrize("key", ["as it lies", "resource"])
def test_a_server_stays_with_its_collector_whichever_worker_exports(key: str, tmp_path: Path) -> None:
    """Another worker's resource may say another process.pid. Routed by what makes job and instance a server stays
    where it is; routed by the whole resource, the control, it does not."""
    config = yaml.safe_load((ROOT / "deploy" / "scale" / "loadbalancer.yaml").read_text())
    if key == "resource":
        exporter = config["exporters"]["load_balancing/apps"]
        exporter["routing_key"] = key
        del exporter["routing_attributes"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with tier(balancers=1, config=str(tmp_path / "config.yaml")) as running:
        sender = Sender(running.ports)
        for pid in range(20):
            app = App("server", attributes={"process.pid": str(pid)})
            app.work()
            assert sender.try_(running.ports[0], app.export())
        sender.close()

        def all_came() -> bool:
            return sum(accepted(each.own_metrics_url) for each in running.collectors) == accepted(
                f"http://{HOST}:{running.balancers[0].own_port}/metrics"
            )

        await_(all_came, "the balancer still has exports")
        assert (len(running.holders()["server"]) == 1) is (key == "as it lies")


def accepted(url: str) -> float:
    """Points that a collector's receiver has taken."""
    lines = re.findall(r"(?m)^otelcol_receiver_accepted_metric_points(?:_total)?\{.*\} (\S+)$", fetch(url))
    return sum(map(float, lines))


def test_flags_are_with_one_collector_whoever_says_them() -> None:
    """A deployment that is started by way of one balancer and ended by way of the other is ended."""
    with tier() as running:
        for balancer, deed in zip(running.balancers, ("start", "end"), strict=True):
            words = ["deploy", deed, "--version", "7", "--environment", "test", "--endpoint", balancer.otlp_endpoint]
            done = subprocess.run(
                [sys.executable, "-m", "relay_otel.cli", *words],
                cwd=ROOT,
                env=clean_environment(),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr

        def shown() -> list[str]:
            texts = [fetch(each.flags_prometheus_url) for each in running.collectors]
            return [line for text in texts for line in text.splitlines() if line.startswith("deployment_active")]

        await_(lambda: bool(shown()) and all(line.endswith(" 0") for line in shown()), lambda: f"not ended: {shown()}")
        assert len(shown()) == 1


@pytest.mark.slow
def test_a_thousand_servers_while_collectors_and_balancers_are_killed() -> None:
    """Three of five collectors and a balancer of three, one after the other: every server's total is exact."""
    rng = random.Random(1)
    with tier(collectors=5, balancers=3, interval=3) as running:
        fleet = Fleet(1000, running.ports)
        fleet.run(until(running.prometheus))
        for victim in [*rng.sample(running.collectors, 3), rng.choice(running.balancers)]:
            victim.kill()
            fleet.run(lambda: True)
            victim.start()
            fleet.run(until(running.prometheus, scrapes=2))
        fleet.round(0, last=True)

        shows(running.prometheus, fleet)
        assert {len(places) for places in running.holders().values()} == {1}


# -- browsers --


class Gateways:
    """Collectors for browsers, and a ledger of what each has answered for.

    Args:
        collectors: browsers send to all of them in turns, and to the next where one does not take it.
    """

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self.collectors = list(collectors)
        self.answered: Counter[int] = Counter()
        """Clicks, by the collector's place."""
        self.unanswered: Counter[int] = Counter()
        """Clicks of beacons that a collector may have taken or not, since it died over them."""
        self.ends: dict[str, list[float]] = {self.address(place): [] for place in range(len(collectors))}
        """When each was killed, by its instance."""
        self.lock = threading.Lock()

    def address(self, place: int) -> str:
        """Its instance in Prometheus."""
        return f"{HOST}:{self.collectors[place].browser_prometheus_port}"

    def kill(self, place: int) -> None:
        """By SIGKILL."""
        self.collectors[place].kill()
        self.ends[self.address(place)].append(time.time())

    def send(self, crowd: Crowd, seconds: float = 0.0, lanes: int = 6) -> None:
        """All beacons of the crowd, each until it is taken."""
        rest, began = iter(enumerate(crowd.bodies)), time.monotonic()

        def lane() -> None:
            clients = [Client(each.browser_port) for each in self.collectors]
            while True:
                with self.lock:
                    number, content = next(rest, (0, b""))
                if not content:
                    break
                # The pace of a crowd, not a wait for something.
                time.sleep(max(0.0, began + seconds * number / len(crowd.bodies) - time.monotonic()))
                place = number
                end = time.monotonic() + DEADLINE_SECONDS
                while not self._taken(clients, place % len(clients), content):
                    assert time.monotonic() < end, f"nobody took a beacon for {DEADLINE_SECONDS:g} s"
                    place += 1
            for client in clients:
                client.close()

        with ThreadPoolExecutor(lanes) as pool:
            for each in [pool.submit(lane) for _ in range(lanes)]:
                each.result()

    def _taken(self, clients: Sequence[Client], place: int, content: bytes) -> bool:
        connection = clients[place].connection
        try:
            connection.request("POST", "/v1/metrics", content, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except ConnectionRefusedError:
            connection.close()
            return False
        except (OSError, http.client.HTTPException):
            connection.close()
            with self.lock:
                self.unanswered[place] += clicks(content)
            return False
        assert answer.status in (200, 503), answer.status
        with self.lock:
            self.answered[place] += clicks(content) if answer.status == 200 else 0
        return answer.status == 200


def clicks(content: bytes) -> int:
    """Of one beacon."""
    metrics = json.loads(content)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    points = [point for each in metrics if each["name"] == CLICKS for point in each["sum"]["dataPoints"]]
    return sum(int(point.get("asInt", 0)) + int(point.get("asDouble", 0)) for point in points)


def clicks_of(prometheus: Prometheus, all_: Gateways, instance: str = "") -> float:
    """That Prometheus has of one gateway, or of all."""
    found = of_browsers(prometheus, all_, f'{CLICKS}{{instance="{instance}"}}' if instance else CLICKS)
    return math.fsum(found.values())


@contextmanager
def gateways(number: int = 3) -> Iterator[tuple[Gateways, Prometheus]]:
    with ExitStack() as stack:
        environment = {**LISTED, "RELAY_COLLECTOR_BROWSER_INTERVAL": "500ms"}
        collectors = [stack.enter_context(Collector(environment=environment)) for _ in range(number)]
        prometheus = stack.enter_context(Prometheus(targets=all_targets(collectors), interval=SCRAPE_SECONDS))
        yield Gateways(collectors), prometheus


def of_browsers(prometheus: Prometheus, all_: Gateways, selector: str = '{job="web"}') -> dict[Key, float]:
    """What every series of all gateways together has counted: the last of each life of a gateway."""
    found: dict[Key, float] = {}
    for history in prometheus.histories(selector, 3600):
        labels = {name: value for name, value in history.labels.items() if name not in EVERYWHERE}
        key = history.labels["__name__"], frozenset(labels.items())
        lives: dict[int, float] = {}
        for at, value in history.samples:
            life = sum(at > end for end in all_.ends[history.labels["instance"]])
            lives[life] = max(value, lives.get(life, 0.0))
        found[key] = found.get(key, 0.0) + math.fsum(lives.values())
    return found


def shows_browsers(prometheus: Prometheus, all_: Gateways, truth: Truth) -> None:
    """Wait until Prometheus has counted exactly that, and two scrapes later still does."""

    def wrong() -> dict[Key, tuple[float | None, float | Between]]:
        return differences(of_browsers(prometheus, all_), truth, {})

    await_(lambda: not wrong(), lambda: f"Prometheus does not show the truth: {wrong()}")
    for _ in range(2):
        prometheus.wait_scrape("collector-browser")
    assert wrong() == {}


def test_browsers_over_three_gateways_are_exact_and_a_crash_costs_what_was_not_scraped() -> None:
    """A thousand browsers spread over three gateways: every counter, bucket and sum is exact. A gateway that is killed
    when all was scraped costs nothing. One that is killed in mid-traffic costs what it had answered for and Prometheus
    had not scraped, no more; what it did not answer for is sent to another."""
    first, second, third = Crowd(1000, 1, seed=1), Crowd(300, 1, seed=2), Crowd(900, 1, seed=3)
    with gateways() as (all_, prometheus):
        all_.send(first)
        shows_browsers(prometheus, all_, first.truth)
        assert min(all_.answered[place] for place in range(3)) > 0

        all_.kill(0)
        all_.collectors[0].start()
        all_.send(second)
        both = Truth()
        both.add(first.truth)
        both.add(second.truth)
        shows_browsers(prometheus, all_, both)

        before = all_.answered[1]
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(all_.send, third, seconds=4.0)
            await_(lambda: all_.answered[1] > before + 100, "nobody sends")
            all_.kill(1)
            down = f'up{{job="collector-browser", instance="{all_.address(1)}"}} == 0'
            await_(lambda: bool(prometheus.query(down)), "Prometheus does not see that it is dead")
            answered, scraped = all_.answered[1], clicks_of(prometheus, all_, all_.address(1))
            all_.collectors[1].start()
            sending.result()
        lost = answered - scraped
        sent = sum(clicks(content) for crowd in (first, second, third) for content in crowd.bodies)
        shown = Between(sent - lost, sent - lost + all_.unanswered[1])

        def total() -> float:
            return clicks_of(prometheus, all_)

        await_(lambda: total() == shown, lambda: f"Prometheus has {total()} clicks, not {shown}, of {sent}")
        for _ in range(2):
            prometheus.wait_scrape("collector-browser")
        assert total() == shown
        assert 0 < lost < sum(clicks(content) for content in third.bodies), (
            "nothing was lost: the ledger proves nothing"
        )
        assert all_.unanswered.keys() <= {1}


@pytest.mark.slow
def test_five_thousand_browsers_and_every_gateway_killed_in_turn() -> None:
    """Killed when all was scraped, a gateway costs nothing, whichever it is and however often."""
    truth = Truth()
    with gateways() as (all_, prometheus):
        for number, place in enumerate((0, 1, 2, 0)):
            crowd = Crowd(1250, 2, seed=number)
            all_.send(crowd)
            truth.add(crowd.truth)
            shows_browsers(prometheus, all_, truth)
            all_.kill(place)
            all_.collectors[place].start()


# -- remote write --


class Store(PrometheusApi, Process):
    """A Prometheus that takes remote write, in place of Mimir, Thanos Receive or VictoriaMetrics."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        folder = new_folder("store")
        (folder / "prometheus.yml").write_text("global: {}\n")
        Process.__init__(
            self,
            "the store",
            [
                str(tool("prometheus")),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{self.port}",
                "--web.enable-remote-write-receiver",
            ],
            ready=lambda: answers(f"{self.url}/-/ready"),
            ports={"Store": self.port},
            folder=folder,
        )

    @property
    def write_url(self) -> str:
        return f"{self.url}/api/v1/write"


class Agent(PrometheusApi, Process):
    """deploy/scale/agent.yml beside prometheus/targets/, as they lie, but for its targets, interval and receiver."""

    def __init__(self, collector: Collector, store: Store) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        folder = new_folder("agent")
        config = folder / "deploy" / "scale" / "agent.yml"
        config.parent.mkdir(parents=True)
        config.write_text(written_to(store, (ROOT / "deploy" / "scale" / "agent.yml").read_text(), agent=True))
        shutil.copytree(ROOT / "prometheus" / "targets", folder / "prometheus" / "targets")
        for file in (folder / "prometheus" / "targets").glob("*.yml"):
            addresses = [target.address for target in collector.targets.get(file.stem, [])]
            file.write_text(json.dumps([{"targets": addresses}]))
        Process.__init__(
            self,
            "the agent",
            [
                str(tool("prometheus")),
                "--agent",
                f"--config.file={config}",
                f"--storage.agent.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{self.port}",
            ],
            ready=lambda: answers(f"{self.url}/-/ready"),
            ports={"Agent": self.port},
            folder=folder,
        )


def written_to(store: Store, text: str, *, agent: bool = False) -> str:
    """A configuration with the store as its receiver, and scraping often."""
    shipped = "http://127.0.0.1:9009/api/v1/push"
    assert text.count(f"    url: {shipped}\n") == 1
    text = text.replace(f"    url: {shipped}\n", f"    url: {store.write_url}\n")
    if agent:
        assert text.count("scrape_interval: 15s") == 1
        text = text.replace("scrape_interval: 15s", f"scrape_interval: {round(SCRAPE_SECONDS * 1000)}ms")
    return text


@pytest.mark.parametrize("sender", ["Prometheus", pytest.param("an agent", marks=pytest.mark.slow)])
def test_remote_write_is_exact_after_an_outage_of_the_receiver(sender: str) -> None:
    """What Prometheus scrapes is in the store it writes to, sample by sample, and after the store was down for some
    scrapes too: they wait in the write-ahead log."""
    with ExitStack() as stack:
        store = stack.enter_context(Store())
        collector = stack.enter_context(Collector())
        fleet = Fleet(30, [collector.port])
        scraper: Prometheus | Agent
        if sender == "Prometheus":
            scraper = prometheus = Prometheus(targets=collector.targets, interval=SCRAPE_SECONDS)
            config = prometheus.folder / "prometheus" / "prometheus.yml"
            piece = (ROOT / "deploy" / "scale" / "remote_write.yml").read_text()
            config.write_text(config.read_text() + written_to(store, piece))
        else:
            scraper = Agent(collector, store)
        began = time.time()
        stack.enter_context(scraper)
        await_(lambda: bool(store.query("up")), "nothing comes to the store")
        fleet.run(until(scraper))
        store.stop()
        fleet.run(until(scraper, scrapes=4))
        store.start()
        fleet.round(0, last=True)

        await_(lambda: counted(store) == fleet.book, lambda: f"{difference(store, fleet)}; no equality")
        assert timed(store) == sum(fleet.book.values())
        if sender == "Prometheus":
            at = prometheus.wait_scrape("collector-apps")
            await_(lambda: (store.value(f"max(timestamp({ONE}))") or 0) >= at, "the newest scrape is not in the store")
            of_both = [each.histories(ONE, at - began, at) for each in (prometheus, store)]
            assert of_both[0] == of_both[1] and sum(len(each.samples) for each in of_both[0]) > 8


CLICKS = "click_event_total"
ONE = f'http_requests_total{{job="{SERVICE}", instance="app-0", status_code="200", endpoint="/api/chat"}}'
