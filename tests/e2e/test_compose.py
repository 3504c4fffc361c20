"""compose.yaml as it lies, in a Docker engine of our own, on images made of what this machine has."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from examples.relay_chat.traffic import Book
from examples.relay_chat.visitors import Seen, Visitors
from tools.books import check, settled, settled_browsers
from tools.chat_stack import CHAPTERS, Traffic, in_turn
from tools.compose import places
from tools.composed import Composed
from tools.engine import Engine

TRAFFIC_SECONDS = 9.0
"""Each of three scenarios for three seconds."""
RESTARTED = ("prometheus", "collector", "app", "postgres", "alertmanager", "probe", "alert-log")
"""All that runs, but the language model: its book is what the rest is held against."""


@pytest.fixture(autouse=True)
def _engine() -> None:
    if os.environ.get("RELAY_TEST_NO_ENGINE") == "1":
        pytest.skip("RELAY_OTEL_TEST_NO_ENGINE=1: no Docker engine is started")


def _busy(running: Composed, book: Book, seen: Counter[Seen]) -> None:
    """Users and visitors for a while; what they saw is added to the books."""
    with (
        Traffic(running.app.url, in_turn(TRAFFIC_SECONDS)) as users,
        Visitors(running.app.url, None) as visitors,
    ):
        users.wait(TRAFFIC_SECONDS)
        visitors.stop()
        users.stop()
    for mine, theirs in ((book, users.book), (book, visitors.book)):
        mine.answers.update(theirs.answers)
        mine.sockets.update(theirs.sockets)
        mine.unanswered.update(theirs.unanswered)
    seen.update(visitors.seen)


@pytest.mark.parametrize(
    "restarts", [[RESTARTED], pytest.param([[each] for each in RESTARTED], marks=pytest.mark.slow)], ids=["all", "each"]
)
def test_the_books_hold_through_restarts(
    restarts: Sequence[Sequence[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real stack starts healthy, the demo's books are equal to what its Prometheus shows, and again after all
    services were restarted, together or one after the other; a book that lacks answers differs."""
    assert len(CHAPTERS) == 3
    book, seen = Book(), Counter[Seen]()
    with Engine() as engine, Composed(engine, engine.build_images(), tmp_path) as running:
        assert [line.split()[0] for line in places(running.compose)] == [running.app.url, running.browsers_url]
        _busy(running, book, seen)
        before = check(running, book, seen)
        assert before, capsys.readouterr().out

        for services in restarts:
            # Nothing is under way: what a restart cuts off nobody could count.
            settled_browsers(running, seen)
            settled(running)
            running.compose.run("restart", *services)
            running.compose.wait()
        running.app.work()
        _busy(running, book, seen)
        after = check(running, book, seen)
        assert after, capsys.readouterr().out

        book.lose(3)
        capsys.readouterr()
        assert not check(running, book, seen)
        assert "differs: the client saw" in capsys.readouterr().out
