"""A failure of relay-otel costs the app nothing but one line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from relay_otel import _guard

DEADLINE_SECONDS = 30


@pytest.fixture
def counted() -> Iterator[list[int]]:
    """As many entries as failures were counted."""
    found: list[int] = []
    before = _guard._count
    _guard.count_with(lambda: found.append(1))
    yield found
    _guard.count_with(before)


@pytest.fixture
def lenient() -> Iterator[None]:
    """As in a user's app."""
    _guard.set_strict(False)
    yield
    _guard.set_strict(None)


def test_a_failure_is_said_once_a_place_and_counted_each_time(
    said: list[str], counted: list[int], lenient: None
) -> None:
    """What fails inside a guard never reaches the app: one line a place, one count each time."""
    for place in ("http.finish", "http.finish", "db.end"):
        with _guard.guard(place):
            raise KeyError("x")

    assert [
        "http.finish failed and was skipped: KeyError: 'x'",
        "db.end failed and was skipped: KeyError: 'x'",
    ] == said
    assert 3 == len(counted)


def test_what_succeeds_is_silent(said: list[str], counted: list[int], lenient: None) -> None:
    """A guard around what works does nothing."""
    with _guard.guard("http.finish"):
        pass

    assert ([], []) == (said, counted)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_end_of_the_app_is_no_failure_of_ours(
    said: list[str], counted: list[int], lenient: None, error: type[BaseException]
) -> None:
    """Interrupts, exits and cancellations pass through untouched."""
    with pytest.raises(error), _guard.guard("http.finish"):
        raise error

    assert ([], []) == (said, counted)


def test_strict_raises(said: list[str], counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With RELAY_OTEL_STRICT=1, as in our tests, the failure itself is raised; it is said and counted as well."""
    error = KeyError("x")
    with pytest.raises(KeyError) as caught, _guard.guard("http.finish"):
        raise error

    assert (error, 1, 1) == (caught.value, len(said), len(counted))


def test_an_argument_outranks_the_variable(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """set_strict() decides; None gives the decision back to RELAY_OTEL_STRICT."""
    monkeypatch.setenv("RELAY_OTEL_STRICT", "0")
    with _guard.guard("a"):
        raise KeyError
    _guard.set_strict(True)
    try:
        with pytest.raises(KeyError), _guard.guard("a"):
            raise KeyError
    finally:
        _guard.set_strict(None)
    with _guard.guard("a"):
        raise KeyError


def test_what_was_said_is_said_again_when_it_was_forgotten(said: list[str]) -> None:
    """forget() tells whether there was anything to forget, and lets a later trouble be said again."""
    answers = [_guard.forget("key")]
    _guard.say_once("key", "one.")
    _guard.say_once("key", "two.")
    answers += [_guard.forget("key"), _guard.forget("key")]
    _guard.say_once("key", "three.")

    assert ([False, True, False], ["one.", "three."]) == (answers, said)


def test_a_sentence_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Each sentence is one line that begins with our name, whatever an exception's text looks like."""
    _guard.say("all is well.")
    _guard.say("it failed: first\nsecond\r\n  third")

    out, err = capsys.readouterr()
    assert ("", "relay-otel: all is well.\n") == (out, err.split("\n", 1)[0] + "\n")
    assert 2 == err.count("\n") == err.count("relay-otel: ")


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError("disk full")


@pytest.mark.parametrize("stream", [None, Broken(), "closed"])
def test_a_stderr_that_takes_nothing_is_no_failure(monkeypatch: pytest.MonkeyPatch, stream: object) -> None:
    """Without a stderr, with a closed one or a full disk, nothing is said and nothing is raised."""
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    _guard.say("nobody hears this.")


def test_saying_something_while_something_is_being_said_does_not_hang(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalizer or a SIGTERM handler may run inside say_once and have something to say itself."""

    class Interrupted(set[str]):
        def add(self, key: str) -> None:
            super().add(key)
            if key == "first":
                _guard.say_once("second", "second.")

    monkeypatch.setattr(_guard, "_said", Interrupted())
    worker = threading.Thread(target=_guard.say_once, args=("first", "first."), daemon=True)
    worker.start()
    worker.join(DEADLINE_SECONDS / 10)
    hung = worker.is_alive()
    if hung:
        _guard._lock = threading.RLock()  # type: ignore[assignment]  # for the tests after this one

    assert (False, ["first.", "second."]) == (hung, sorted(said))


def test_one_thread_of_many_says_it(said: list[str]) -> None:
    """When many threads meet the same trouble at once it is said once."""
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        _guard.say_once("key", "once.")

    threads = [threading.Thread(target=run, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    assert ["once."] == said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_speak_though_a_thread_of_the_parent_was_speaking() -> None:
    """A fork while another thread holds our lock does not silence the child."""
    script = """
import os, threading, time
from relay_otel import _guard
held = threading.Event()
def hold():
    with _guard._lock:
        held.set()
        time.sleep(60)
threading.Thread(target=hold, daemon=True).start()
held.wait()
pid = os.fork()
if pid == 0:
    _guard.say_once("key", "the child speaks.")
    os._exit(0)
os.waitpid(pid, 0)
os._exit(0)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_SECONDS)

    assert (0, "relay-otel: the child speaks.\n") == (run.returncode, run.stderr)
