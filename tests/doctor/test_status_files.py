"""What becomes of the files of processes that are forked, or killed, at a bad moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_otel import status
from relay_otel.runtime import Server, homes
from relay_otel.siblings import Process, me
from tests.doctor.test_status import told

FORK = """
import shutil, threading
from relay_otel import status

relay_otel.configure()
writing, over = threading.Event(), threading.Event()

def write():
    with status.own._lock:
        writing.set()
        over.wait(30)

threading.Thread(target=write, daemon=True).start()
writing.wait(30)
shutil.rmtree(glob.glob(os.environ["XDG_RUNTIME_DIR"] + "/relay-otel-*")[0])  # so the child has something to say

child = os.fork()
if child == 0:
    print(json.dumps(len(relay_otel._guard.sentences())), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_child_forked_while_another_thread_writes(tmp_path: Path) -> None:
    """What it says as it is born does not wait for a thread that only its parent has."""
    assert 1 <= told(tmp_path, FORK)


def test_a_draft_of_a_killed_process_is_taken_away(tmp_path: Path) -> None:
    """One killed as it wrote leaves a draft: it goes with its file, and a living process's stays."""
    (home,) = [home for home in homes(str(tmp_path)) if home.path.parent == tmp_path]
    killed, living = status.name_of(Process(4_194_000, 5)), status.name_of(me())
    names = [killed, f".{killed}.7.new", f".{living}.9.new", ".somebody.new"]
    for name in names:
        (home.path / name).write_text("{")
    own = status.Status()
    own.begin(Server(home.path), dict)

    assert [*sorted(names[2:]), living] == sorted(each.name for each in home.path.iterdir() if each.name != "lock")
    own.end()


def test_small_apps_without_end_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the 21st app on nothing new is told, so nothing is written."""
    (home,) = [home for home in homes(str(tmp_path)) if home.path.parent == tmp_path]
    written: list[bytes] = []
    monkeypatch.setattr(status.Status, "_write", lambda self, server, text: written.append(text))
    own = status.Status()
    own.begin(Server(home.path), dict)
    for _ in range(1_000):
        own.app({"kind": "starlette.applications.Starlette"})

    assert 1 + status.APPS == len(written)
    own.end()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no answer from postgresql://me:pw@db/x: give up", "no answer from postgresql://...@db/x: give up"),
        ("GET https://h/x?key=abc failed", "GET https://h/x?... failed"),
        ("two@places, one://here and what?", "two@places, one://here and what?"),
    ],
)
def test_a_sentence_shows_no_secret_of_a_url(said: str, shown: str) -> None:
    assert shown == status.shown_text(said)
