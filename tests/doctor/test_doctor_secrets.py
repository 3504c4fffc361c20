"""No secret in what a process says of itself, nor in what the doctor prints of it; as tests/e2e/test_secrets.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay_otel.cli import main
from relay_otel.doctor import app
from relay_otel.doctor.hiding import Hiding
from relay_otel.doctor.view import View
from relay_otel.settings import Settings
from tests.doctor.looked import app_in, doctor, serve
from tests.e2e.served import servers_in
from tests.e2e.test_secrets import QUERY, USER, WORD, WRONG, collector, leaks, secrets, visit
from tools.process import HOST, await_, free_port
from tools.stack import Server, uvicorn


@pytest.mark.parametrize("how", ["dead", "401"])
def test_an_app_with_every_secret(how: str, tmp_path: Path) -> None:
    """Beside an app that has a secret in every place and has met every failure: its file and both outputs have none."""
    with collector(how) as (address, _):
        environment = secrets(tmp_path, address, XDG_RUNTIME_DIR=str(tmp_path), OTEL_TRACES_EXPORTER="console")
        words = [*uvicorn("tests.e2e.secretive:app"), "--header", f"x-key:{WORD}-word"]
        with Server(words, environment=environment) as server:
            visit(server)
            await_(lambda: "is not taking metrics" in server.log.read_text(), server.tail)
            (place,) = servers_in(tmp_path)
            files = [path.read_text() for path in place.glob("status-*")]
            more = ("--prometheus", f"http://{USER}@{HOST}:{free_port()}", "--alertmanager", f"http://{USER}@{HOST}:1")
            looks = [doctor(*more, environment=environment, json_=as_json) for as_json in (True, False)]
            own = {"XDG_RUNTIME_DIR": str(tmp_path)}  # a caller who has none of the app's variables
            looks += [doctor(environment=own, json_=as_json) for as_json in (True, False)]
            server.stop()

    assert 1 == len(files) and '"ledger": {"value": "set"' in files[0] and "is not taking metrics" in files[0]
    assert all("secretive" in look.stdout for look in looks)
    assert [] == leaks("\n".join([*files, *(look.stdout + look.stderr for look in looks)]))


def test_an_app_that_prints_them(tmp_path: Path) -> None:
    """One that fails with its whole environment on stderr: the last lines are shown without what is secret in them."""
    app = "import os\nraise SystemExit('\\n'.join(f'{k}: {v}' for k, v in os.environ.items()))\n"
    environment = secrets(tmp_path, f"{HOST}:{free_port()}", MY_PASSWORD=f"{WORD}-mine", XDG_RUNTIME_DIR=str(tmp_path))
    folder = app_in(tmp_path / "app", app)
    looks = [doctor(*serve(free_port()), environment=environment, cwd=folder, json_=each) for each in (True, False)]

    assert all("MY_PASSWORD: ..." in look.stdout for look in looks)
    assert [] == leaks("\n".join(look.stdout + look.stderr for look in looks))


def test_a_leak_is_found(tmp_path: Path) -> None:
    """Negative control: the same lines as they are have them."""
    environment = secrets(tmp_path, f"{HOST}:{free_port()}")
    text = "\n".join(environment.values())
    assert leaks(text) and [] == leaks(Hiding(environment)(text))


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value that cannot be used, where it may be a secret, is not repeated."""
    environment = {"RELAY_OTEL_SPOOL_DIR": str(tmp_path), "OTEL_METRICS_EXPORTER": "prometheus"}
    for variable, value in WRONG[case].items():
        environment[variable] = value
        if value.startswith("<"):
            (tmp_path / "file").write_text(value[1:-1])
            environment[variable] = str(tmp_path / "file")
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    assert 1 == main(["doctor"])
    said = "".join(capsys.readouterr())
    assert [] == leaks(said)
    assert any(each in said for each in WRONG[case]) or "ledger" in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://me:pw@host/x?sslkey=abc", "at postgresql://...@host/x?..."),
        ("GET http://host/x?token=abc HTTP/1.1", "GET http://host/x?... HTTP/1.1"),
        (f"Bearer {WORD}-a, {WORD}-b", "Bearer ..., ..."),
        ("nothing of it", "nothing of it"),
    ],
)
def test_what_is_hidden(text: str, shown: str) -> None:
    """Users and queries of URLs, and the values of variables that sound secret, also one of many headers."""
    hide = Hiding(
        {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{WORD}-a,x={WORD}-b", "X": QUERY, "A_KEY": "1"}
    )
    assert shown == hide(text)


def test_what_an_app_has_said() -> None:
    """A sentence of an app's has the text of somebody's error in it, and that may have anything."""
    said = f"http.begin failed and was skipped: ValueError: {WORD}-mine, not postgresql://me:{WORD}@db/x?a={WORD}."
    view = View({"MY_PASSWORD": f"{WORD}-mine"}, Settings(), processes=({"said": [{"text": said}]},))
    (found,) = app.said(view)

    assert [] == leaks(" ".join(found.reported().values()))
    assert "ValueError: ..., not postgresql://...@db/x?..." in found.what
