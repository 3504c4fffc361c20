"""`make audit` against a database of our own: what is known is named, what cannot be asked is no "none"."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tools import audit
from tools.process import HOST, ROOT, free_port, tool


@contextmanager
def database(holes: Mapping[str, list[str]], *, status: int = 200, answered: int | None = None) -> Iterator[str]:
    """Its URL. ``holes``: by package; ``answered``: how many of the questions, all unless given."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["content-length"])))["queries"]
            results: list[dict[str, Any]] = [
                {"vulns": [{"id": hole} for hole in holes[name]]} if (name := each["package"]["name"]) in holes else {}
                for each in queries
            ]
            content = json.dumps({"results": results[:answered]}).encode() if status == 200 else b"no"
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_nothing_known(capsys: pytest.CaptureFixture[str]) -> None:
    """All three kinds are asked for, and each says for how many."""
    with database({}) as url:
        assert audit.main(["--database", url]) == 0
    kinds = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["python", "node", "go"]


def test_each_kind_finds_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """Negative control: a hole in a package of each kind is on a line with its version and where it stands."""
    holes = {"requests": ["PYSEC-1", "GHSA-1"], "web-vitals": ["GHSA-2"], "github.com/prometheus/common": ["GO-1"]}
    with database(holes) as url:
        assert audit.main(["--database", url]) == 1
    said = capsys.readouterr().out
    for words in (": PYSEC-1, GHSA-1 (requirements/", ": GHSA-2 (", ": GO-1 ("):
        assert words in said, said
    places = {line.split(": GO-1 (")[1] for line in said.splitlines() if "GO-1" in line}
    assert "blackbox_exporter" in "".join(places)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"status": 405}, "answers 405"), ({"status": 503}, "answers 503"), ({"answered": 3}, "answered 3 of ")],
)
def test_a_database_that_does_not_answer_is_no_all_clear(
    wrong: dict[str, int], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said, and the exit is 2."""
    with database({}, **wrong) as url:
        assert audit.main(["python", "--database", url]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.out == ""


def test_a_database_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence names it and what was therefore not audited; what can be asked still is."""
    assert audit.main(["node", "--database", f"http://{HOST}:{free_port()}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("node: http://") and "nothing was audited by it." in said


def test_locks_are_read_whole() -> None:
    """Every line that pins, every package of npm's lock, every module of a binary with its replacements."""
    pinned = [line for lock in (ROOT / "requirements").glob("*.lock") for line in lock.read_text().splitlines()]
    assert len(list(audit.python_packages(ROOT))) == sum("==" in line and not line.startswith(" ") for line in pinned)
    web = {package.name for package, place in audit.node_packages(ROOT) if place == "web/package-lock.json"}
    assert {"web-vitals", "typescript"} <= web
    modules = [package for package, _ in audit.go_modules([tool("prometheus")])]
    assert {"stdlib", "github.com/prometheus/common"} <= {each.name for each in modules}
    assert len({each.name for each in modules}) == len(modules) > 100
