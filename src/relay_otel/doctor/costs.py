"""The settings of model costs in; whether ledger, spool and prices are as they should be, out. Nothing is changed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from relay_otel.doctor.findings import Finding, fault, good, note, unknown
from relay_otel.doctor.hiding import Hiding
from relay_otel.doctor.view import Check, View
from relay_otel.instruments import THRESHOLDS
from relay_otel.llm.accounts import Options, spool_path
from relay_otel.llm.prices import Prices
from relay_otel.llm.spool import PAGE, ROOM
from relay_otel.runtime import NETWORK, file_system
from relay_otel.settings import Settings

DAY = 86_400
OLD_DAYS = 60
"""Of price data: providers change prices, and name models, every few weeks."""

NEARLY = 0.8
"""Of the spool's limit, and of what its disk must have left."""

PRODUCTION = frozenset({"prod", "production"})


def ledger(view: View) -> Iterator[Finding]:
    """Whether the ledger answers, and has its tables."""
    settings = view.settings
    if settings.ledger is None:
        if "ledger" in settings.origins:
            yield unknown("costs-ledger", "The app has a ledger, whose URL is not known here.",
                          "Set RELAY_OTEL_LEDGER for this command as for the app.")  # fmt: skip
        else:
            yield good("costs-ledger", "No ledger is named: costs are metrics only.")
        return
    try:
        import sqlalchemy as sa

        from relay_otel.llm.ledger import BadLedger, make_engine, sync_url
    except ModuleNotFoundError:
        return  # the packages' group says it
    origin = settings.origins.get("ledger", "RELAY_OTEL_LEDGER")
    hide = Hiding({**view.environ, "LEDGER_URL": settings.ledger})
    try:
        url = sync_url(settings.ledger)
        if url.drivername == "sqlite" and url.database and not Path(url.database).exists():
            folder = Path(url.database).absolute().parent
            if os.access(folder, os.W_OK):
                yield good("costs-ledger", "The ledger, an SQLite file, is made with the first event.")
                return
            raise BadLedger(f"{folder} is no directory that this user may write to")
        engine = make_engine(settings.ledger)
        try:
            with engine.connect() as connection:
                made = sa.inspect(connection).has_table("cost_events")
        finally:
            engine.dispose()
    except BadLedger as bad:
        yield fault("costs-ledger", f"{origin} cannot be used: {hide(str(bad))}.", "Costs are metrics only.",
                    "Name a ledger that can be, like sqlite:///costs.db.")  # fmt: skip
    except Exception as error:  # whatever a driver raises
        cause = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        yield fault(
            "costs-ledger",
            f"The ledger of {origin} does not answer ({hide(cause)}).",
            "Events wait in the spool; when it is full, new ones are dropped.",
            f"Start the database, or repair the URL in {origin}.",
        )
    else:
        if made or url.drivername == "sqlite":
            yield good("costs-ledger", "The ledger answers.")
        else:
            yield fault("costs-ledger", "The ledger answers, but has no table cost_events.",
                        "Events wait in the spool until it has.", "Run `relay-otel llm migrate`.")  # fmt: skip


def spool(view: View) -> Iterator[Finding]:
    """Whether events can wait for the ledger, and do not wait too long."""
    settings = view.settings
    if "ledger" not in settings.origins and settings.spool_dir is None:
        return
    folder = _folder(view)
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    kind = file_system(there)
    named = f"The spool's directory {folder}"
    repair = "Set RELAY_OTEL_SPOOL_DIR to a local directory that this user may write to and that outlives the process."
    if kind in NETWORK:
        yield fault(
            "costs-spool",
            f"{named} is on a network file system ({kind}).",
            "SQLite's locks and its log cannot be relied on there: the file may break, and events be lost.",
            repair,
        )
        return
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield fault("costs-spool", f"{named} cannot be written to.", "Costs are metrics only.", repair)
        return
    disk = os.statvfs(there)
    if disk.f_bavail * disk.f_frsize < ROOM:
        yield fault("costs-spool", f"The disk of {folder} has less than {ROOM >> 20} MB left.",
                    "New events are dropped, and counted as dropped.", "Make room there.")  # fmt: skip
        return
    yield from _waiting(view, folder)


def _waiting(view: View, folder: Path) -> Iterator[Finding]:
    settings = view.settings
    path = None
    if settings.ledger is not None:
        service = view.service or settings.service_name or "unknown_service"
        options = Options(service_name=service, ledger=settings.ledger, spool_dir=str(folder))
        path = spool_path(options)
    if path is None or not path.exists():
        yield good("costs-spool", f"Events can wait in {folder}; none does.")
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2)) as connection:
            number, oldest = connection.execute("SELECT count(*), min(at) FROM waiting WHERE kind = 'event'").fetchone()
            (dead,) = connection.execute("SELECT count(*) FROM dead").fetchone()
            (pages,), (free,) = (
                connection.execute(f"PRAGMA {each}").fetchone() for each in ("page_count", "freelist_count")
            )
    except sqlite3.Error as error:
        yield unknown("costs-spool", f"{path} cannot be read ({type(error).__name__}).",
                      "Try again; where it is broken the app sets it aside.")  # fmt: skip
        return
    age = 0.0 if oldest is None else time.time() - oldest
    size = (pages - free) * PAGE
    why = "Nothing is lost while there is room; the ledger lacks these costs."
    if age > THRESHOLDS["spool_seconds"]:
        yield fault("costs-spool", f"{number} event(s) wait in {path}, the oldest for {int(age)} s.", why,
                    "Repair the ledger; then run the app or `relay-otel llm spool drain`.")  # fmt: skip
    if size > NEARLY * settings.spool_bytes:
        yield fault("costs-spool", f"{path} holds {size >> 20} MB of at most {settings.spool_bytes >> 20} MB.",
                    "When it is full, new events are dropped.",
                    "Repair the ledger, or raise RELAY_OTEL_SPOOL_BYTES.")  # fmt: skip
    if dead:
        yield fault(
            "costs-spool",
            f"{dead} event(s) that the ledger refused are set aside in {path}.",
            "The ledger lacks these costs.",
            "See why with `relay-otel llm spool status`; then `relay-otel llm spool drain --retry-rejected`.",
        )
    if age <= THRESHOLDS["spool_seconds"] and not dead and size <= NEARLY * settings.spool_bytes:
        yield good("costs-spool", f"{number} event(s) wait in {path}.")


def prices(view: View) -> Iterator[Finding]:
    """Whether prices are known, and not old."""
    days = None
    for page in view.pages:
        age = page.total("llm_price_data_age_seconds")
        servers = len(page.of("llm_price_data_age_seconds"))
        days = age / servers / DAY if age is not None else days
    if days is None and not view.processes:
        source = Prices(view.settings.prices, view.settings.origins.get("prices", "RELAY_OTEL_PRICES"))
        source.load_in_background().join()
        newest = source.newest(datetime.now(UTC))
        days = (datetime.now(UTC) - newest).days if newest is not None else None
    if days is None:
        yield note("costs-prices", "No price data is loaded: calls of language models are counted without a price.", "",
                   "Run `pip install 'relay-otel[llm]'` if there are any.")  # fmt: skip
    elif days >= OLD_DAYS:
        yield fault(
            "costs-prices",
            f"The newest price that is known is {int(days)} days old.",
            "New models have no price, and old ones an old one: sums of cost are wrong.",
            "Run `pip install --upgrade genai-prices`, restart the app, then `relay-otel llm reprice`; or put prices "
            "of your own into the file of RELAY_OTEL_PRICES.",
        )
    else:
        yield good("costs-prices", f"The newest price that is known is {int(days)} days old.")


def user_key(view: View) -> Iterator[Finding]:
    """Whether pseudonyms of users can be guessed, where it matters."""
    settings = view.settings
    if not tells_users_apart(settings):
        yield good("costs-user-key", "No user is told apart in metrics.")
    elif settings.user_hash_key is not None or "user_hash_key" in settings.origins:
        yield good("costs-user-key", "User ids are hashed with a key.")
    elif settings.environment.lower() in PRODUCTION:
        yield fault(
            "costs-user-key",
            f"RELAY_OTEL_USER_HASH_KEY is not set in {settings.environment}.",
            "User ids are hashed by plain SHA-256: who has the metrics or the ledger finds out whose they are by "
            "hashing ids or addresses that they try.",
            "Put a long random text into a file and name it in RELAY_OTEL_USER_HASH_KEY_FILE; or set "
            "RELAY_OTEL_USER_LABEL=off where no user is to be told apart.",
        )
    else:
        yield good(
            "costs-user-key", f"User ids are hashed without a key, in {settings.environment}; give production one."
        )


def tells_users_apart(settings: Settings) -> bool:
    """Whether pseudonyms of users stand in metrics or in a ledger."""
    return settings.user_label != "off" or "ledger" in settings.origins


def _folder(view: View) -> Path:
    settings, environ = view.settings, view.environ
    if settings.spool_durability == "memory" and os.path.isdir("/dev/shm"):
        return Path("/dev/shm", f"relay-otel-spool-{os.getuid()}")
    if settings.spool_dir:
        return Path(settings.spool_dir)
    state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or Path.home(), ".local", "state")
    return Path(state, "relay-otel")


CHECKS: tuple[Check, ...] = (ledger, spool, prices, user_key)
