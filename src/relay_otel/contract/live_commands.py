"""``relay-otel contract live-check``: pages, or what is sent by OTLP, in; problems and coverage on the terminal out."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from relay_otel.contract.live import LiveCheck, emitted
from relay_otel.contract.received import from_otlp, from_page
from relay_otel.contract.receiver import PATH, Receiver
from relay_otel.definitions import Definition
from relay_otel.operations.prometheus_api import address
from relay_otel.stack.extra import complain
from relay_otel.values import without_password

ANSWERS = "relay.yaml"
"""In the folder of a stack, which has metrics of its user's."""
EMITTERS = ("app", "browser", "rules", "probe", "cli")
SECONDS = 30.0
"""Three exports, with the interval that an app has unless it is set."""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "live-check",
        help="compare what is emitted with the contract",
        description="Compare what pages of metrics show, or what is sent by OTLP over HTTP, with the contract: names, "
        "types, units, labels, closed sets, buckets; and say what of it never came. Exit 1 where something is wrong.",
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="URL or file of a page: an app's, a collector's")
    parser.add_argument("--listen", type=_place, metavar="[HOST:]PORT", help="take OTLP over HTTP here meanwhile")
    parser.add_argument(
        "--seconds", type=_seconds, default=SECONDS, help=f"listen for so long; {SECONDS:g} unless said"
    )
    parser.add_argument(
        "--contract",
        type=Path,
        metavar="DIR",
        help="folder with relay.yaml, or a contract; relay-otel's own unless said",
    )
    parser.add_argument(
        "--emitter", action="append", choices=EMITTERS, help="what these emit is expected; app unless said"
    )
    parser.add_argument("--ignore", action="append", default=[], metavar="NAME", help="no problem; may end in *")
    parser.add_argument("--coverage", type=_percent, default=0.0, metavar="PERCENT", help="exit 1 below it")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(words: argparse.Namespace) -> int:
    """0: as the contract says; 1: something is not, or too little came; 2: nothing could be looked at."""
    if not words.pages and words.listen is None:
        return complain(
            "live-check has nothing to look at; name a page, like http://localhost:8000/metrics, or --listen.",
            2,
        )
    try:
        definitions = _definitions(words.contract)
    except ValueError as error:  # ContractError
        return complain(str(error), 2)
    check = LiveCheck(definitions, expected=emitted(definitions, *(words.emitter or ())), ignore=words.ignore)
    for page in words.pages:
        try:
            check.add(from_page(_read(page)))
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            return complain(f"{without_password(page)} is no page of metrics ({reason}); name one that is.", 2)
    if words.listen is not None:
        host, port = words.listen
        try:
            with Receiver(lambda request: check.add(from_otlp(request)), host, port) as receiver:
                print(f"taking OTLP at {receiver.endpoint}{PATH} for {words.seconds:g} s", file=sys.stderr, flush=True)
                with contextlib.suppress(KeyboardInterrupt):  # enough was seen
                    threading.Event().wait(words.seconds)
        except OSError as error:
            return complain(
                f"--listen is {host}:{port}, which cannot be listened on ({error.strerror}); choose another.",
                2,
            )
    print(_as_json(check) if words.json else check.text())
    if words.contract is None and any(problem.what == "unknown" for problem in check.problems):
        complain(
            "the contract is relay-otel's own; for metrics of yours name the folder with relay.yaml: --contract DIR"
        )
    return 1 if check.problems or check.coverage * 100 < words.coverage else 0


def _as_json(check: LiveCheck) -> str:
    problems = [problem._asdict() for problem in check.problems]
    return json.dumps(
        {"problems": problems, "seen": sorted(check.seen), "missing": check.missing, "coverage": check.coverage}
    )


def _definitions(folder: Path | None) -> tuple[Definition, ...]:
    from relay_otel.instruments import DEFINITIONS

    if folder is None:
        return tuple(DEFINITIONS.values())
    if (folder / ANSWERS).exists():
        from relay_otel.stack.loading import load_stack

        return load_stack(folder).own.all.definitions
    from relay_otel.contract.load import load

    return load(folder).definitions


def _read(page: str) -> str:
    if not page.startswith(("http://", "https://")):
        return Path(page).read_text(encoding="utf-8")
    bare, headers = address(page)
    query = urlsplit(page).query  # a page may be asked for a part of it
    url = f"{bare}?{query}" if query else bare
    try:
        with urlopen(Request(url, headers=headers | {"Accept": "text/plain"}), timeout=10) as answer:
            return str(answer.read().decode())
    except URLError as error:
        raise OSError(str(error.reason)) from None
    except HTTPException as error:
        raise OSError(f"it does not speak HTTP: {type(error).__name__}") from None


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give one such as 4318, or 0.0.0.0:4318.")
    return host or "127.0.0.1", int(port)


def _seconds(text: str) -> float:
    return _number(text, "seconds", 86_400)


def _percent(text: str) -> float:
    return _number(text, "a percentage", 100)


def _number(text: str, what: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} from 0 to {most:g}.")
    return value
