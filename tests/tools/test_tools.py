"""tools/install.py with rows of our own, built by a five-line script: no network, no compiler."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tools import install
from tools.pins import Tool

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 20  # a generous end for what takes milliseconds

BUILD = """
import pathlib, sys, time
target, book, then = sys.argv[1:]
with open(book, "a") as lines:
    lines.write("built\\n")
print("compiling the hammer")
if then == "hang":
    time.sleep(600)
if then == "fail":
    sys.exit("dial tcp: no route to host")
pathlib.Path(target).write_text("#!/bin/sh\\n")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "pins.yaml").write_text("hammer: 1\n")
    (folder / "build.py").write_text(BUILD)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RELAY_OTEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hammer(checkout: Path) -> Callable[..., Tool]:
    """A row whose build notes itself in a book and then succeeds, fails or hangs."""

    def row(then: str = "succeed", version: str = "1.0", needs: tuple[str, ...] = ()) -> Tool:
        words = [sys.executable, "build.py", "{bin}/hammer", str(checkout.parent / "book"), then]
        return Tool(
            name="hammer",
            version=version,
            takes="a moment",
            binaries=("hammer",),
            steps=(shlex.join(words).replace("'{bin}/hammer'", "{bin}/hammer"),),
            inputs=("pins.yaml", "build.py"),
            needs=needs,
        )

    return row


def builds(checkout: Path) -> int:
    book = checkout.parent / "book"
    return len(book.read_text().splitlines()) if book.exists() else 0


def in_the_background(tool: Tool, checkout: Path) -> subprocess.Popen[str]:
    code = (
        # pytest may itself run with signals ignored (nohup, a shell's "&"); a terminal's user does not.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
        "import sys; from pathlib import Path; from tools import install; from tools.pins import Tool;"
        f"sys.exit(install.main([], ({tool!r},), Path({str(checkout)!r})))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_builds(checkout: Path, number: int) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while builds(checkout) < number:
        assert time.monotonic() < end, f"only {builds(checkout)} builds began"
        time.sleep(0.01)


def names(folder: Path) -> set[str]:
    return {re.sub(r"-[0-9a-f]{12}$", "", path.name) for path in folder.iterdir()}


def test_a_build_ends_in_one_folder_that_links_all_binaries(hammer, checkout, cache, capsys):
    """After an install the printed folder holds a link for each binary, and the checkout is as it was."""
    before = {path: path.read_bytes() for path in checkout.rglob("*")}

    assert install.main([], (hammer(),), checkout) == 0

    said = capsys.readouterr().out.splitlines()
    bin_folder = Path(said[-1].removeprefix("All tools are there: "))
    assert said[0] == "building hammer 1.0 (a moment) ..."
    assert [path.name for path in bin_folder.iterdir()] == ["hammer"]
    assert os.access(bin_folder, os.R_OK) and (bin_folder / "hammer").read_text() == "#!/bin/sh\n"
    assert {path: path.read_bytes() for path in checkout.rglob("*")} == before
    assert names(cache) == {"hammer-1.0", "bin", "logs", ".lock"}


def test_a_second_run_builds_nothing(hammer, checkout, cache, capsys):
    """A second run builds nothing and says so in one line."""
    install.main([], (hammer(),), checkout)
    capsys.readouterr()

    assert install.main([], (hammer(),), checkout) == 0

    assert capsys.readouterr().out.count("\n") == 1
    assert builds(checkout) == 1


def test_path_prints_one_line_and_builds_nothing(hammer, checkout, cache, capsys):
    """--path prints the folder and nothing else on stdout, whether the tools are there or not."""
    assert install.main(["--path"], (hammer(),), checkout) == 0
    early = capsys.readouterr()
    assert (builds(checkout), cache.exists()) == (0, False)
    assert early.err == "Not all tools are there yet: run `make tools`.\n"

    install.main([], (hammer(),), checkout)
    capsys.readouterr()
    install.main(["--path"], (hammer(),), checkout)
    late = capsys.readouterr()

    assert (late.out, late.err) == (early.out, "")
    assert (Path(late.out.removesuffix("\n")) / "hammer").is_file()


def test_list_shows_what_is_there(hammer, checkout, cache, capsys):
    """--list names each tool with its version and binaries, and says whether it is there."""
    install.main(["--list"], (hammer(),), checkout)
    assert capsys.readouterr().out.split() == ["hammer", "1.0", "hammer", "missing", "(a", "moment)"]

    install.main([], (hammer(),), checkout)
    capsys.readouterr()
    install.main(["--list"], (hammer(),), checkout)

    assert capsys.readouterr().out.split() == ["hammer", "1.0", "hammer", "there"]


def test_a_changed_pin_builds_anew_beside_the_old(hammer, checkout, cache, capsys):
    """A changed input file changes the printed folder, and the next install builds again."""
    install.main([], (hammer(),), checkout)
    install.main(["--path"], (hammer(),), checkout)
    old = capsys.readouterr().out.splitlines()[-1]

    (checkout / "pins.yaml").write_text("hammer: 2\n")
    install.main(["--path"], (hammer(),), checkout)
    new = capsys.readouterr().out.splitlines()[-1]
    install.main([], (hammer(),), checkout)

    assert old != new and (Path(old) / "hammer").is_file() and (Path(new) / "hammer").is_file()
    assert builds(checkout) == 2


def test_a_deleted_binary_is_built_again(hammer, checkout, cache, capsys):
    """A tool folder from which somebody deleted the binary counts as missing and is replaced whole."""
    install.main([], (hammer(),), checkout)
    next(cache.glob("hammer-1.0-*/hammer")).unlink()

    assert install.main([], (hammer(),), checkout) == 0

    assert builds(checkout) == 2
    assert next(cache.glob("bin-*/hammer")).is_file()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_build_leaves_nothing(hammer, checkout, cache, stop):
    """A build that is stopped half-way leaves its log and nothing else."""
    with in_the_background(hammer(then="hang"), checkout) as process:
        wait_for_builds(checkout, 1)
        process.send_signal(stop)
        said, _ = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 130
    assert said.splitlines()[-1] == "Stopped; what was finished is kept, run this again to go on."
    assert names(cache) == {"logs", ".lock"}


def test_a_killed_build_does_not_count_as_built(hammer, checkout, cache):
    """After kill -9 in mid-build the next install sweeps the remains and builds the tool."""
    hanging = hammer(then="hang")
    with in_the_background(hanging, checkout) as process:
        wait_for_builds(checkout, 1)
        process.kill()
        process.communicate(timeout=DEADLINE_SECONDS)
    for left in orphans(checkout):
        os.kill(left, signal.SIGKILL)
    assert any(path.name.startswith("building-") for path in cache.iterdir())
    assert not install.Cache(cache, checkout, (hanging,)).has(hanging)

    assert install.main([], (hammer(),), checkout) == 0

    assert names(cache) == {"hammer-1.0", "bin", "logs", ".lock"}


def orphans(checkout: Path) -> list[int]:
    """Builds that outlived the install which was killed; found by the path of this test's own book."""
    mine = str(checkout.parent / "book").encode()
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mine in command.read_bytes().split(b"\0"):
                found.append(int(command.parent.name))
        except OSError:
            continue  # it ended while we looked
    return found


def test_the_demo_waits_for_no_tool_of_the_tests(hammer, checkout, cache, capsys):
    """--demo leaves out what only tests and checks need; a whole install afterwards adds it, in the same folder."""
    row = hammer()
    steps = tuple(step.replace("{bin}/hammer", "{bin}/anvil") for step in row.steps)
    both = (row, replace(row, name="anvil", binaries=("anvil",), steps=steps, demo=False))

    assert install.main(["--demo"], both, checkout) == 0
    assert builds(checkout) == 1
    capsys.readouterr()
    assert install.main(["--path"], both, checkout) == 0
    path, said = capsys.readouterr()
    assert Path(path.strip(), "hammer").is_file() and "Not all tools are there" in said
    assert install.main(["--demo"], both, checkout) == 0 and builds(checkout) == 1

    assert install.main([], both, checkout) == 0
    assert builds(checkout) == 2
    capsys.readouterr()
    install.main(["--path"], both, checkout)
    assert capsys.readouterr() == (path, "")


def test_two_installs_at_once_build_once(hammer, checkout, cache):
    """Two installs started together build each tool once, and both succeed."""
    with in_the_background(hammer(), checkout) as one, in_the_background(hammer(), checkout) as other:
        for process in (one, other):
            process.communicate(timeout=DEADLINE_SECONDS)

    assert (one.returncode, other.returncode, builds(checkout)) == (0, 0, 1)


def test_a_failed_build_says_what_to_do(hammer, checkout, cache, capsys):
    """A failure shows the end of the build log, its path, the tool and the repair, and keeps nothing."""
    assert install.main([], (hammer(then="fail"),), checkout) == 1

    said = capsys.readouterr().err
    assert "    compiling the hammer\n    dial tcp: no route to host\n" in said
    assert "hammer 1.0 could not be built" in said and "ended with 1." in said
    assert "A Go module could not be fetched: see that the proxy in `go env GOPROXY` answers" in said
    assert Path(said.rsplit("The whole log: ")[1].strip()).is_file()
    assert names(cache) == {"logs", ".lock"}


def test_a_missing_program_is_named_before_anything_is_built(hammer, checkout, cache, capsys, monkeypatch):
    """Without Go the one sentence names Go, the tool that wants it, and how to get it."""
    monkeypatch.setenv("PATH", str(checkout))

    assert install.main([], (hammer(needs=("go",)),), checkout) == 1

    assert capsys.readouterr().err == (
        "go is not on PATH, and hammer 1.0 cannot be built without it. Install Go >= 1.26 (https://go.dev/dl/),"
        " put its bin folder on PATH and run this again.\n"
    )
    assert builds(checkout) == 0


def test_an_old_go_is_named_with_its_version(hammer, checkout, cache, capsys, monkeypatch):
    """Go 1.25 is refused by version before anything is built."""
    go = checkout / "go"
    go.write_text("#!/bin/sh\necho go1.25.9\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(checkout))

    assert install.main([], (hammer(needs=("go",)),), checkout) == 1

    assert capsys.readouterr().err.startswith("go is go1.25.9, too old for hammer 1.0. Install Go >= 1.26")


def test_an_unusable_cache_names_its_variable(hammer, checkout, capsys, monkeypatch):
    """A cache that cannot be written names RELAY_OTEL_CACHE as the way out."""
    monkeypatch.setenv("RELAY_OTEL_CACHE", str(checkout / "pins.yaml" / "below-a-file"))

    assert install.main([], (hammer(),), checkout) == 1

    assert "Set RELAY_OTEL_CACHE to a writable folder." in capsys.readouterr().err


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    """The cache is $RELAY_OTEL_CACHE, else $XDG_CACHE_HOME/relay-otel, else ~/.cache/relay-otel."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.delenv("RELAY_OTEL_CACHE", raising=False)
    assert install.cache_folder() == tmp_path / ".cache" / "relay-otel"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert install.cache_folder() == tmp_path / "xdg" / "relay-otel"
    monkeypatch.setenv("RELAY_OTEL_CACHE", str(tmp_path / "own"))
    assert install.cache_folder() == tmp_path / "own"


def test_every_version_is_exact_and_said_once():
    """The rows pin exact versions, equal to those in the files that they build from."""
    versions = {tool.name: tool.version for tool in install.TOOLS}
    builder = yaml.safe_load((ROOT / "collector/builder.yaml").read_text())

    assert builder["dist"]["version"] == versions["collector"]
    for name in ("blackbox_exporter", "pint"):
        assert f"{name} v{versions[name]}\n" in (ROOT / "tools/go" / name / "go.mod").read_text()
    for tool in install.TOOLS:
        for step in tool.steps:
            assert all(re.search(r"@v(\d|\{version\})", word) for word in step.split() if "@" in word)
