"""``relay-otel llm``: words and settings in; the ledger told about, compared, migrated or erased from.

0: done and all is well; 1: a difference, or something is left; 2: the words or a setting cannot be used.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from relay_otel import filelock
from relay_otel.llm import privacy
from relay_otel.llm.accounts import Options, spool_path
from relay_otel.llm.prices import Prices
from relay_otel.llm.spool import Spool
from relay_otel.settings import Settings
from relay_otel.values import without_password

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

BATCH = 500
"""Events of one transaction: nobody else works in this process."""

RELATIVE, ABSOLUTE = 1e-9, 1e-9
"""Of the comparison with metrics, which are floats: two million additions drift by 2e-14 of their sum."""


class Refused(Exception):
    """What the words ask for cannot be done; the sentence says why and what can."""


def add(commands: Any) -> None:
    """The sub-commands of ``relay-otel``'s parser."""
    llm = commands.add_parser("llm", help="the cost ledger: report, reconcile, reprice, migrate, erase-user, spool")
    words = llm.add_subparsers(dest="llm_command", required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Callable[[Settings, argparse.Namespace], int]) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = words.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + "."
        )
        parser.add_argument("--ledger", help="SQLAlchemy URL (RELAY_OTEL_LEDGER)")
        parser.set_defaults(run=run)
        return parser

    report = command("report", "what was used and what it cost", _report)
    report.add_argument(
        "--by", default="day,model", help="day, model, operation, user, environment, status (%(default)s)"
    )
    report.add_argument("--since", help="a date or time, or a number of days, like 7d (everything)")
    report.add_argument("--until", help="a date or time")
    report.add_argument("--environment", help="only of this environment")
    report.add_argument("--format", choices=("table", "csv", "json"), default="table", help="(%(default)s)")

    reconcile = command("reconcile", "whether the ledger holds all that was counted; exit 1 if not", _reconcile)
    reconcile.add_argument("--metrics", help="URL of a server's /metrics, to compare its counters too")
    reconcile.add_argument("--token", help="bearer token for it (RELAY_OTEL_METRICS_TOKEN)")

    reprice = command("reprice", "book the cost of calls that had no price, now that there is one", _reprice)
    reprice.add_argument("--all", action="store_true", help="also calls that had one, where today's prices differ")
    reprice.add_argument("--model", help="only of this model")
    reprice.add_argument("--since", help="a date or time, or a number of days, like 7d (everything)")
    reprice.add_argument("--until", help="a date or time")
    reprice.add_argument("--dry-run", action="store_true", help="only say what would be booked")

    migrate = command("migrate", "make the ledger's tables, or bring them up to date", _migrate)
    migrate.add_argument("--dry-run", action="store_true", help="only say what would be done")

    erase = command("erase-user", "take a user's pseudonym out of the ledger; tokens and costs stay", _erase)
    erase.add_argument("user_id", help="the id that hash_user_id() was given")
    erase.add_argument("--key-file", action="append", default=[], metavar="FILE", help="an older key; may be repeated")
    erase.add_argument("--dry-run", action="store_true", help="only count the rows")

    spool = command("spool", "what waits for the ledger: status, or drain it now", _spool)
    spool.add_argument("action", choices=("status", "drain"))
    spool.add_argument("--service", help="service.name whose spool it is (OTEL_SERVICE_NAME)")
    spool.add_argument("--retry-rejected", action="store_true", help="with drain: try again what was set aside")
    spool.add_argument("--dry-run", action="store_true", help="with drain: only count")
    for each in (reconcile, erase):
        each.add_argument("--service", help="service.name whose spool is looked at too (OTEL_SERVICE_NAME)")


def run(settings: Settings, words: argparse.Namespace) -> int:
    """Do what the words say."""
    words.opened = contextlib.ExitStack()
    try:
        with words.opened:
            return int(words.run(settings, words))
    except Refused as refused:
        _complain(str(refused))
        return 2
    except ModuleNotFoundError as error:
        _complain(f"{error.name} is not installed; install relay-otel[llm].")
        return 2
    except BrokenPipeError:
        return 0
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "sqlalchemy":
            raise
        original = getattr(error, "orig", None) or error
        lines = str(original).strip().splitlines()
        _complain(f"the ledger does not answer as it should ({lines[0] if lines else type(original).__name__}).")
        return 2


# -- the commands --


def _report(settings: Settings, words: argparse.Namespace) -> int:
    from relay_otel.llm.reports import GROUPS, report

    by = [each.strip() for each in words.by.split(",") if each.strip()]
    unknown = [each for each in by if each not in GROUPS]
    if unknown or not by:
        raise Refused(f"--by is {words.by!r}; choose from {', '.join(GROUPS)}, with commas between them.")
    since, until = _moment("--since", words.since), _moment("--until", words.until)
    lines = report(_engine(settings, words), by, since, until, words.environment)
    titles = [*by, "calls", "input_tokens", "output_tokens", "cost_usd", "unknown_cost"]
    rows = [
        [*line.group, line.calls, line.input_tokens, line.output_tokens, line.cost_usd, line.unknown_cost]
        for line in lines
    ]
    if words.format == "json":
        print(json.dumps([dict(zip(titles, map(_plain, row), strict=True)) for row in rows], indent=2))
    elif words.format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(titles)
        writer.writerows([[_plain(each) for each in row] for row in rows])
    else:
        _print_table(titles, rows, len(by))
    return 0


def _print_table(titles: list[str], rows: list[list[Any]], keys: int) -> None:
    total = ["total"] + [""] * (keys - 1) + [sum(row[at] for row in rows) for at in range(keys, len(titles))]
    shown = [[_shown(each) for each in row] for row in [*rows, total]]
    widths = [max(len(row[at]) for row in [titles, *shown]) for at in range(len(titles))]
    for row in [titles, *shown]:
        cells = [text.ljust(width) if at < keys else text.rjust(width)
                 for at, (text, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        print("  ".join(cells).rstrip())


def _reconcile(settings: Settings, words: argparse.Namespace) -> int:
    from relay_otel.llm.reports import reconcile

    engine = _engine(settings, words)
    waiting: dict[str, set[int]] = {}
    rejected: dict[str, set[int]] = {}
    spool = _existing_spool(settings, words)
    if spool is not None:
        for texts, numbers in (([item.text for item in spool.take(2**31)], waiting),
                               ([item.text for item in spool.dead()], rejected)):  # fmt: skip
            for text in texts:
                try:
                    row = json.loads(text)
                    numbers.setdefault(row["instance_id"], set()).add(row["seq"])
                except (ValueError, KeyError, TypeError):
                    continue
    found = reconcile(engine, waiting, rejected, _progress())
    differences = found.differences
    if words.metrics:
        differences += _against_metrics(engine, words.metrics, words.token or settings.metrics_token)
    for note in found.notes:
        print(f"note: {note}")
    for difference in differences:
        print(f"difference: {difference}")
    if words.metrics:
        print(f"compared with {without_password(words.metrics)}, metric by metric.")
    print(
        f"{found.events} events of {found.instances} instances, {found.cost_usd} USD: "
        + (f"{len(differences)} differences." if differences else "no difference.")
    )
    return 1 if differences else 0


def _against_metrics(engine: Engine, url: str, token: str | None) -> list[str]:
    """The server's own counters beside what its processes have booked."""
    from relay_otel.llm.reports import by_model

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urlopen(Request(url, headers=headers), timeout=10) as answer:
            text = answer.read().decode()
    except (URLError, OSError, ValueError) as error:
        raise Refused(f"--metrics is {url!r}, which does not answer ({error}); give the URL of a /metrics.") from None
    server = None
    counted: dict[tuple[str, str], float] = {}
    for name, labels, value in _samples(text):
        if name == "target_info":
            server = labels.get("service_instance_id")
        if name == "api_cost_usd_total":
            key = labels.get("operation", ""), labels.get("model", "")
            counted[key] = counted.get(key, 0.0) + value
    if server is None:
        raise Refused(f"--metrics is {url!r}, which does not say whose it is (target_info); give a server's /metrics.")
    booked = by_model(engine, server)
    differences = []
    for key in sorted({*counted, *booked}):
        operation, model = key
        here, there = float(booked.get(key, 0)), counted.get(key, 0.0)
        if abs(here - there) > ABSOLUTE + RELATIVE * max(abs(here), abs(there)):
            differences.append(f"{operation} by {model}: {here!r} USD in the ledger, {there!r} in {url}.")
    return differences


def _samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    return [
        (sample.name, dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def _reprice(settings: Settings, words: argparse.Namespace) -> int:
    from relay_otel.llm.ledger import Ledger
    from relay_otel.llm.reprice import reprice

    since, until = _moment("--since", words.since), _moment("--until", words.until)
    _engine(settings, words)  # says what is wrong with the ledger
    ledger = Ledger(_url(settings, words))
    words.opened.callback(ledger.close)
    prices = Prices(settings.prices, settings.origins.get("prices", "RELAY_OTEL_PRICES"))
    found = reprice(
        ledger, prices, every=words.all, model=words.model, since=since, until=until, dry_run=words.dry_run,
        progress=_progress(),
    )  # fmt: skip
    verb = "would be" if words.dry_run else "were"
    print(f"{found.rows} calls {verb} repriced, {found.cost_usd:+f} USD.")
    for model, number in found.unknown.most_common():
        print(f"still no price: {number} calls of {model}")
    return 1 if found.unknown else 0


def _migrate(settings: Settings, words: argparse.Namespace) -> int:
    from relay_otel.llm.migrate import migrate, pending

    engine = _engine(settings, words)
    if words.dry_run:
        with engine.connect() as connection:
            steps = pending(connection)
        print(f"to do: {', '.join(steps)}." if steps else "the ledger is up to date.")
        return 0
    steps = migrate(engine)
    print(f"done: {', '.join(steps)}." if steps else "the ledger is up to date.")
    return 0


def _erase(settings: Settings, words: argparse.Namespace) -> int:
    from relay_otel.llm.reports import erase

    keys = [settings.user_hash_key] if settings.user_hash_key else []
    for name in words.key_file:
        try:
            keys.append(Path(name).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"--key-file is {name!r}, which cannot be read ({error}); name a readable file.") from None
    pseudonyms = privacy.every_pseudonym(words.user_id, keys)
    spool = _existing_spool(settings, words)
    spooled = 0
    if spool is not None:
        spooled = spool.rewrite(lambda text: _without(text, pseudonyms), dry_run=words.dry_run)
    number = erase(_engine(settings, words), pseudonyms, dry_run=words.dry_run, progress=_progress())
    verb = "would be" if words.dry_run else "were"
    print(f"{number} rows of the ledger and {spooled} of the spool {verb} freed of the user.")
    return 0


def _without(text: str, pseudonyms: list[str]) -> str | None:
    """The same event without the user; None: it is not theirs."""
    try:
        row = json.loads(text)
    except ValueError:
        return None
    if not isinstance(row, dict) or row.get("user_id_hash") not in pseudonyms:
        return None
    return json.dumps({**row, "user_id_hash": privacy.ERASED, "hash_key_id": None}, separators=(",", ":"))


def _spool(settings: Settings, words: argparse.Namespace) -> int:
    spool = _existing_spool(settings, words)
    if spool is None:
        wanted = Path(spool_path(_options(settings, words)))
        print(f"no spool at {wanted}: nothing was ever logged with this ledger by a service of this name.")
        others = sorted(each.name.rpartition("-")[0] for each in wanted.parent.glob("*.db"))
        if others:
            print(f"there are spools of {', '.join(dict.fromkeys(others))}: name one with --service.")
        return 0
    if words.action == "drain":
        return _drain(spool, settings, words)
    number, oldest = spool.pending()
    age = "" if oldest is None else f", the oldest for {time.time() - oldest:.0f} s"
    print(f"{spool.path}: {number} events wait{age}; {spool.size():,} bytes.")
    dead = spool.dead()
    for reason, many in Counter(each.reason for each in dead).most_common():
        print(f"set aside: {many} for {reason}")
    return 0


def _drain(spool: Spool, settings: Settings, words: argparse.Namespace) -> int:
    from relay_otel.llm.ledger import Ledger, Unavailable

    if words.dry_run:
        print(f"{spool.pending()[0]} events would be sent, {len(spool.dead())} are set aside.")
        return 0
    with filelock.locked(spool.path.with_suffix(".ship")) as held:
        if not held:
            raise Refused("a running server ships this spool already; it needs no help.")
        if words.retry_rejected:
            spool.revive()
        engine_url = _url(settings, words)
        ledger, progress, sent, refused = Ledger(engine_url), _progress(), 0, 0
        words.opened.callback(ledger.close)
        while items := spool.take(BATCH):
            try:
                stored = ledger.store(items)
            except Unavailable as error:
                _complain(f"the ledger takes nothing ({error}); {spool.pending()[0]} events go on waiting.")
                return 1
            for item, reason in stored.rejected:
                spool.bury(item, reason)
            spool.remove([item.id for item in items])
            sent, refused = sent + stored.inserted + stored.duplicates, refused + len(stored.rejected)
            progress(f"{sent} events sent")
    print(f"{sent} events sent, {refused} set aside.")
    return 1 if refused else 0


# -- small things --


def _url(settings: Settings, words: argparse.Namespace) -> str:
    url = words.ledger or settings.ledger
    if not url:
        raise Refused(
            "no ledger is named; give --ledger, or set RELAY_OTEL_LEDGER to a database, like sqlite:///costs.db."
        )
    return str(url)


def _engine(settings: Settings, words: argparse.Namespace) -> Engine:
    from relay_otel.llm.ledger import BadLedger, make_engine

    url = _url(settings, words)
    try:
        engine = make_engine(url)
    except BadLedger as wrong:
        raise Refused(f"the ledger's URL cannot be used: {wrong}.") from None
    words.opened.callback(engine.dispose)
    file = engine.url.database if engine.dialect.name == "sqlite" and words.llm_command != "migrate" else None
    if file and not Path(file).exists():
        raise Refused(f"there is no file {file}: no event was ever booked in this ledger.")
    return engine


def _options(settings: Settings, words: argparse.Namespace) -> Options:
    service = getattr(words, "service", None) or settings.service_name or "unknown_service"
    return Options(
        service_name=service,
        ledger=_url(settings, words),
        spool_dir=settings.spool_dir,
        durability=settings.spool_durability,
    )


def _existing_spool(settings: Settings, words: argparse.Namespace) -> Spool | None:
    path = spool_path(_options(settings, words))
    if not path.exists():
        return None
    spool = Spool(path, settings.spool_durability, settings.spool_bytes)
    words.opened.callback(spool.close)
    return spool


def _moment(name: str, text: str | None) -> datetime | None:
    if not text:
        return None
    if text.endswith("d") and text[:-1].isdecimal():
        return datetime.now(UTC) - timedelta(days=int(text[:-1]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{name} is {text!r}; give a date like 2026-01-31, a time, or days like 7d.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _progress() -> Callable[[str], None]:
    """A line a second on stderr; it is rewritten where there is a terminal."""
    latest = time.monotonic()

    def tell(text: str) -> None:
        nonlocal latest
        now = time.monotonic()
        if now - latest >= 1.0:
            latest = now
            end = "\r" if sys.stderr.isatty() else "\n"
            print(text, end=end, file=sys.stderr, flush=True)

    return tell


def _plain(value: object) -> object:
    """For CSV and JSON: a Decimal as its digits."""
    return format(value, "f") if isinstance(value, Decimal) else value


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else format(value, "f" if isinstance(value, Decimal) else "")


def _complain(sentence: str) -> None:
    print(f"relay-otel: {sentence}", file=sys.stderr)
