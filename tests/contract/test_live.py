"""The live check: what differs from the contract is named, what never came is too, whatever way it was received."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader

import relay_otel
from relay_otel import instruments
from relay_otel.contract.live import LiveCheck, Problem, Series, emitted
from relay_otel.contract.received import from_otlp, from_page
from relay_otel.contract.receiver import PATH, Receiver
from relay_otel.definitions import Definition, Label
from relay_otel.testing import check_page, live_check
from tests.contract.small import small_contract

ENVIRONMENT = Label("environment")
ORDERS = Definition(
    "orders_total", "counter", "{order}", "Orders.", (Label("plan", members=("free", "pro")), ENVIRONMENT),
    status="emitted",
)  # fmt: skip
WAITED = Definition(
    "waited_seconds", "histogram", "s", "How long.", (Label("shop", limit=9), ENVIRONMENT), bounds=(0.5, 1.0),
    status="emitted",
)  # fmt: skip
OPEN = Definition("carts_open", "updowncounter", "", "Carts.", (ENVIRONMENT,))
SEEN = Definition("seen_total", "counter", "", "Seen.", (ENVIRONMENT,), emitter="browser", status="emitted")
SHOP = (ORDERS, WAITED, OPEN, SEEN)
GOOD = {"plan": "pro", "environment": "test"}

RIGHT: tuple[Series, ...] = (
    Series("orders_total", GOOD, "counter", "{order}"),
    Series("orders_total", {**GOOD, "plan": "other"}),
    Series("orders_total", {**GOOD, "job": "shop", "instance": "a", "otel_scope_name": "x"}),
    Series("waited_seconds", {"shop": "", "environment": "test"}, "histogram", "s", (0.5, 1.0)),
    Series("waited_seconds", {"environment": "test"}),
    Series("carts_open", {"environment": "test"}, "gauge"),
    Series("carts_open", {"environment": "test"}, "updowncounter"),
    Series("seen_total", {"environment": "test"}, delta=True),
    Series("target_info", {"service": "x"}),
)
WRONG: tuple[tuple[Series, Problem], ...] = (
    (
        Series("order_total", GOOD),
        Problem("order_total", "unknown", "order_total: the contract has no such metric; did you mean orders_total?"),
    ),
    (
        Series("mails", {}),
        Problem(
            "mails",
            "unknown",
            "mails: the contract has no such metric; add it to the contract, or say that it is to be ignored.",
        ),
    ),
    (
        Series("orders_total", GOOD, "gauge"),
        Problem("orders_total", "kind", "orders_total: it came as a gauge, and is a counter."),
    ),
    (
        Series("orders_total", GOOD, "counter", "1"),
        Problem("orders_total", "unit", "orders_total: it came with the unit '1', and has '{order}'."),
    ),
    (
        Series("orders_total", {**GOOD, "user": "7"}),
        Problem("orders_total", "label", "orders_total: it came with the label user, and has plan, environment."),
    ),
    (
        Series("orders_total", {"plan": "pro"}),
        Problem("orders_total", "label", "orders_total: it came without the label environment."),
    ),
    (
        Series("orders_total", {"environment": "test"}),
        Problem("orders_total", "label", "orders_total: it came without the label plan."),
    ),
    (
        Series("orders_total", {**GOOD, "plan": "gold"}),
        Problem("orders_total", "value", "orders_total: its label plan came as 'gold', and is one of free, pro."),
    ),
    (
        Series("waited_seconds", {"environment": "test"}, "histogram", "s", (0.5, 2.0)),
        Problem("waited_seconds", "buckets", "waited_seconds: its buckets came as 0.5, 2, and are 0.5, 1."),
    ),
    (
        Series("orders_total", GOOD, delta=True),
        Problem("orders_total", "temporality", "orders_total: it came as a delta; send cumulative totals."),
    ),
)


@pytest.mark.parametrize("series", RIGHT, ids=str)
def test_what_is_as_the_contract_says_is_no_problem(series: Series) -> None:
    """Values beyond a closed set come as `other`; a free label may be empty; who was scraped may be named."""
    check = LiveCheck(SHOP)
    check.add([series])

    assert check.problems == []


@pytest.mark.parametrize(("series", "problem"), WRONG, ids=[f"{p.metric} {p.what}" for _, p in WRONG])
def test_what_is_not_is_one_sentence(series: Series, problem: Problem) -> None:
    """The metric, the label and the value are named; the same twice is said once."""
    check = LiveCheck(SHOP)
    check.add([series, series])

    assert check.problems == [problem]


def test_what_never_came_is_named() -> None:
    """Coverage counts what the app emits, by the contract; a metric that is only planned is not expected."""
    check = LiveCheck(SHOP)
    check.add([Series("orders_total", GOOD)])

    assert (check.seen, check.missing, check.coverage) == ({"orders_total"}, ["waited_seconds"], 0.5)
    assert check.text() == "declared and never emitted: waited_seconds.\n1 of 2 expected metrics came (50%)."


def test_who_expects_says_so() -> None:
    """Names of one's own choice are expected; one that no contract has is an error, as a slip of the pen should be."""
    assert emitted(SHOP, "browser") == ["seen_total"]
    assert LiveCheck(SHOP, expected=["seen_total"]).missing == ["seen_total"]
    assert LiveCheck(SHOP, expected=()).coverage == 1.0
    with pytest.raises(
        LookupError, match=r"'order_total', which the contract does not have; did you mean orders_total\?"
    ):
        LiveCheck(SHOP, expected=["order_total"])


@pytest.mark.parametrize(
    ("ignore", "left"), [(["mails"], ["mail_size"]), (["mail*"], []), ([], ["mails", "mail_size"])]
)
def test_what_is_ignored(ignore: list[str], left: list[str]) -> None:
    """A name, or the beginning of some."""
    check = LiveCheck(SHOP, ignore=ignore)
    check.add([Series("mails", {}), Series("mail_size", {})])

    assert [problem.metric for problem in check.problems] == left


PLAIN = """\
# HELP orders_total Orders.
# TYPE orders_total counter
orders_total{plan="pro",environment="test"} 2.0
# HELP waited_seconds How long.
# TYPE waited_seconds histogram
waited_seconds_bucket{environment="test",le="0.5"} 1
waited_seconds_bucket{environment="test",le="1.0"} 1
waited_seconds_bucket{environment="test",le="+Inf"} 2
waited_seconds_sum{environment="test"} 3.5
waited_seconds_count{environment="test"} 2
# HELP carts_open Carts.
# TYPE carts_open gauge
carts_open{environment="test"} 1.0
"""
OPENMETRICS = PLAIN.replace(" orders_total O", " orders O").replace(" orders_total c", " orders c").replace(
    "# HELP waited", 'orders_created{plan="pro",environment="test"} 1.0\n# HELP waited', 1
) + "# EOF\n"  # fmt: skip

CREATED = (
    PLAIN
    + """\
# HELP orders_created Orders.
# TYPE orders_created gauge
orders_created{plan="pro",environment="test"} 1.7e9
# HELP waited_seconds_created How long.
# TYPE waited_seconds_created gauge
waited_seconds_created{environment="test"} 1.7e9
"""
)
"""As prometheus_client writes start times into the plain format."""


@pytest.mark.parametrize("page", [PLAIN, OPENMETRICS, CREATED], ids=["text", "OpenMetrics", "text with start times"])
def test_a_page_is_read(page: str) -> None:
    """Both text formats give the same series; start times are none."""
    assert list(from_page(page)) == [
        Series("orders_total", GOOD, "counter"),
        Series("waited_seconds", {"environment": "test"}, "histogram", None, (0.5, 1.0)),
        Series("carts_open", {"environment": "test"}, "gauge"),
    ]


def test_a_page_is_checked_in_a_test() -> None:
    """`check_page` takes the text of /metrics, with relay-otel's own contract and yours."""
    spoiled = PLAIN.replace('plan="pro"', 'plan="gold"')

    assert (check_page(PLAIN, SHOP).problems, check_page(PLAIN, SHOP).missing) == ([], [])
    assert [problem.what for problem in check_page(spoiled, SHOP).problems] == ["value"]


@pytest.mark.parametrize(
    "page", ["<html>\n", "# TYPE a histogram\na_bucket 1\n", "# TYPE a histogram\na_bucket{le='x'} 1\n"]
)
def test_no_page_is_an_error(page: str) -> None:
    """What is no page is refused, not taken for an empty one; so is a bucket without a bound."""
    with pytest.raises(ValueError, match=r"<html>|could not convert|Invalid"):
        check_page(page)


def test_a_start_time_that_is_a_metric_stays_one() -> None:
    """A gauge of that ending is left out only beside the metric that it belongs to."""
    assert [Series("user_created", {}, "gauge")] == list(from_page("# TYPE user_created gauge\nuser_created 1\n"))


def test_a_page_of_another_program_is_looked_at_once_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand series of thirty metrics that nobody knows cost thirty searches for what is meant."""
    searched: list[str] = []
    monkeypatch.setattr(LiveCheck, "_near", lambda self, name: searched.append(name) or "")
    check = LiveCheck(SHOP)
    check.add(Series(f"proxy_{number % 30}", {"backend": str(number)}) for number in range(100_000))

    assert 30 == len(searched) == len(check.problems)


def test_a_page_is_asked_with_its_query(capsys: pytest.CaptureFixture[str]) -> None:
    """`/federate?match[]=...` is a page only with its query; what speaks something else is one sentence."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for text in (b"HTTP/1.0 200 OK\r\n\r\n# TYPE up gauge\nup 1\n", b"SSH-2.0-x\r\n"):
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(65_536).splitlines()[0])
                    connection.sendall(text)

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/federate?match[]=up"
        assert [1, 2] == [command(url), command(url)]

    assert asked[0].startswith(b"GET /federate?match[]=up ")
    assert "is no page of metrics (it does not speak HTTP: BadStatusLine)" in capsys.readouterr().err


def send(endpoint: str, delta: bool) -> None:
    """One measurement, by the stock SDK and its exporter."""
    preferred = {Counter: AggregationTemporality.DELTA} if delta else None
    exporter = OTLPMetricExporter(f"{endpoint}{PATH}", preferred_temporality=preferred, compression=None)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter)])
    meter = provider.get_meter("shop")
    meter.create_counter("orders_total", "{order}").add(1, {**GOOD, "count": 3})
    meter.create_histogram("waited_seconds", "s", explicit_bucket_boundaries_advisory=[0.5, 1]).record(
        0.7, {"environment": "test"}
    )
    meter.create_up_down_counter("carts_open").add(1, {"environment": "test"})
    provider.shutdown()


@pytest.mark.parametrize("delta", [False, True])
def test_otlp_is_received(delta: bool) -> None:
    """What the stock exporter sends is read: type, unit, labels as text, bounds, temporality."""
    came: list[Series] = []
    with Receiver(lambda request: came.extend(from_otlp(request))) as receiver:
        send(receiver.endpoint, delta)

    assert came == [
        Series("orders_total", {**GOOD, "count": "3"}, "counter", "{order}", None, delta, "shop"),
        Series("waited_seconds", {"environment": "test"}, "histogram", "s", (0.5, 1.0), False, "shop"),
        Series("carts_open", {"environment": "test"}, "updowncounter", "", None, False, "shop"),
    ]


JSON = json.dumps(
    {
        "resourceMetrics": [
            {
                "scopeMetrics": [
                    {
                        "metrics": [
                            {
                                "name": "seen_total",
                                "sum": {
                                    "aggregationTemporality": 1,
                                    "isMonotonic": True,
                                    "dataPoints": [
                                        {
                                            "asInt": "2",
                                            "attributes": [{"key": "environment", "value": {"stringValue": "test"}}],
                                        }
                                    ],
                                },
                            }
                        ]
                    }
                ]
            }
        ]
    }
)


def test_browsers_json_is_received() -> None:
    """What @relay-otel/web sends."""
    came: list[Series] = []
    with Receiver(lambda request: came.extend(from_otlp(request))) as receiver:
        answer = requests.post(
            f"{receiver.endpoint}{PATH}", JSON, headers={"content-type": "application/json"}, timeout=30
        )

    assert (answer.status_code, answer.json()) == (200, {})
    assert came == [Series("seen_total", {"environment": "test"}, "counter", "", None, True)]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/traces", b"", {}, 404),
        (PATH, b"{", {"content-type": "application/json"}, 400),
        (PATH, b"no gzip", {"content-encoding": "gzip"}, 400),
        (PATH, b"", {"content-length": "99999999"}, 413),
    ],
)
def test_what_is_no_otlp_is_refused(path: str, body: bytes, headers: dict[str, str], status: int) -> None:
    """One answer, and the next request is taken."""
    came: list[Series] = []
    with Receiver(lambda request: came.extend(from_otlp(request))) as receiver:
        answer = requests.post(f"{receiver.endpoint}{path}", body, headers=headers, timeout=30)
        assert (answer.status_code, came) == (status, [])
        send(receiver.endpoint, delta=False)

    assert len(came) == 3


# -- in a user's tests --


def test_recorded_is_checked_within_a_test() -> None:
    """`live_check` begins at zero, takes what is recorded, and says what of your contract nobody touched."""
    plans = relay_otel.counter("live_orders_total", labels=("plan",), unit="{order}", description="Orders.")
    mine = Definition(
        "live_orders_total", "counter", "{order}", "Orders.", (Label("plan", members=("pro",)), ENVIRONMENT),
        status="emitted",
    )  # fmt: skip
    never = Definition("live_never_total", "counter", "", "Never.", (ENVIRONMENT,), status="emitted")
    with live_check([mine, never]) as check:
        plans.add(1, {"plan": "pro"})
        plans.add(1, {"plan": "gold"})

    assert [problem.sentence for problem in check.problems] == [
        "live_orders_total: its label plan came as 'gold', and is one of pro."
    ]
    assert (check.missing, check.coverage) == (["live_never_total"], 0.5)


def test_without_a_contract_of_yours_an_instrument_of_yours_is_unknown() -> None:
    """It is named; `ignore` is for those that no contract should have."""
    relay_otel.counter("live_strays_total")

    def problems(ignore: Iterable[str]) -> list[str]:
        with live_check(ignore=ignore) as check:
            relay_otel.counter("live_strays_total").add(1)
        return [problem.metric for problem in check.problems]

    assert (problems(()), problems(["live_*"])) == (["live_strays_total"], [])


def test_our_own_page_is_as_the_contract_says() -> None:
    """An app's /metrics has no problem, in either format."""
    handle = relay_otel.configure()
    assert handle.endpoint is not None
    with live_check() as check:
        relay_otel.chat_messages_total.add(1, {"model": "m", "status": "success", "user_id_hash": ""})
        page = check_page(handle.endpoint.text(), ignore=["live_*"])

    assert (check.problems, page.problems) == ([], [])
    assert "chat_messages_total" in check.seen & page.seen & set(instruments.DEFINITIONS)


# -- as a command --


def command(*words: str) -> int:
    from relay_otel.cli import main

    return main(["contract", "live-check", *words])


def test_the_command_reads_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder's contract, a page of it: problems and coverage are printed, and decide the status."""
    contract = small_contract(tmp_path, "part: http, series_limit: 3", "part: http, series_limit: 3, status: emitted")
    page = tmp_path / "page"
    page.write_text('# TYPE requests_total counter\nrequests_total{slo="latency",environment="x"} 1\n')

    assert command(str(page), "--contract", str(contract)) == 0
    assert capsys.readouterr().out == "1 of 1 expected metrics came (100%).\n"

    page.write_text("# TYPE other_total counter\nother_total 1\n")
    assert command(str(page), "--contract", str(contract), "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert [problem["what"] for problem in said.pop("problems")] == ["unknown"]
    assert said == {"seen": [], "missing": ["requests_total"], "coverage": 0.0}

    assert command(str(page), "--contract", str(contract), "--ignore", "other_*") == 0
    assert command(str(page), "--contract", str(contract), "--ignore", "other_*", "--coverage", "1") == 1


def test_the_command_says_whose_contract_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A metric that ours does not know may be one of theirs; who named a contract is not told of --contract."""
    page = tmp_path / "page"
    page.write_text("# TYPE mails_total counter\nmails_total 1\n")
    line = "the contract is relay-otel's own; for metrics of yours name the folder with relay.yaml: --contract DIR\n"

    assert command(str(page)) == 1
    assert capsys.readouterr().err == f"relay-otel: {line}"
    assert command(str(page), "--ignore", "mails_*") == 0
    assert command(str(page), "--contract", str(small_contract(tmp_path))) == 1
    assert capsys.readouterr().err == ""


def test_the_command_listens() -> None:
    """`--listen` takes what an app sends until its time is over, or somebody has seen enough."""
    words = [sys.executable, "-m", "relay_otel.cli", "contract", "live-check", "--listen", "0", "--seconds", "600"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listening:
        assert listening.stderr is not None
        said = re.fullmatch(rf"taking OTLP at (\S+){PATH} for 600 s\n", listening.stderr.readline())
        assert said is not None
        send(said[1], delta=False)
        listening.send_signal(signal.SIGINT)
        out, _ = listening.communicate(timeout=30)

    assert listening.returncode == 1
    assert "orders_total: the contract has no such metric" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "live-check has nothing to look at; name a page, like http://localhost:8000/metrics, or --listen."),
        (["/nowhere"], "/nowhere is no page of metrics (No such file or directory); name one that is."),
        (
            ["http://u:p@127.0.0.1:1/metrics"],
            "http://...@127.0.0.1:1/metrics is no page of metrics ([Errno 111] Connection refused); name one that is.",
        ),
        (["--contract", "/nowhere", "x"], "/nowhere/metrics.yaml: it cannot be read (No such file or directory); "),
    ],
)
def test_what_cannot_be_looked_at_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, the value and the repair, no password."""
    assert command(*words) == 2
    assert sentence in capsys.readouterr().err
