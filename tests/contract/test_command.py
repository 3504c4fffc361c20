"""`python -m relay_otel.contract`: what it writes, what it prints, when it fails."""

import shutil
import sys
from pathlib import Path

import pytest

from relay_otel.contract import lock
from relay_otel.contract.__main__ import main
from relay_otel.contract.load import load
from relay_otel.contract.render import targets
from tests.contract.small import small_contract

CONTRACT = Path(__file__).resolve().parents[2] / "contract"


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """A copy of our contract in a project where nothing was generated yet."""
    return Path(shutil.copytree(CONTRACT, tmp_path / "contract", ignore=shutil.ignore_patterns(lock.NAME)))


def test_generate_writes_what_is_stale(contract: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`generate` names each file it wrote, and a second run finds nothing to write."""
    assert main(["--contract", str(contract), "generate"]) == 0
    generated = targets(load(contract), contract.parent)
    assert "prometheus/rules/slo.gen.yml" in generated
    assert capsys.readouterr().out.splitlines() == [f"wrote {target}" for target in generated]

    assert main(["--contract", str(contract), "generate"]) == 0
    assert capsys.readouterr().out == ""


def test_check_names_what_is_stale_and_writes_nothing(contract: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`generate --check` exits 1 with a line for each stale file, and leaves it as it was."""
    main(["--contract", str(contract), "generate"])
    page = contract.parent / "docs/metrics.md"
    page.write_text("edited by hand", encoding="utf-8")
    capsys.readouterr()

    assert main(["--contract", str(contract), "generate", "--check"]) == 1
    assert capsys.readouterr().err.splitlines() == ["docs/metrics.md is stale; run make generate."]
    assert page.read_text(encoding="utf-8") == "edited by hand"


def test_check_is_silent_when_all_is_fresh(contract: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`generate --check` prints nothing and exits 0 when every file is what the contract says."""
    main(["--contract", str(contract), "generate"])
    capsys.readouterr()

    assert main(["--contract", str(contract), "generate", "--check"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_contract_without_rules_has_no_files_of_them(contract: Path) -> None:
    """rules.yaml may be left out by who has rules of their own."""
    (contract / "rules.yaml").unlink()
    assert not [
        target for target in targets(load(contract), contract.parent) if "rules" in target or "alerts" in target
    ]


def test_faster_rules_are_written_where_one_wants_them(
    contract: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`rules` writes the same rules, and with --time-scale others, into a folder."""
    words = ["--contract", str(contract), "rules"]
    assert main([*words, str(tmp_path / "same")]) == 0
    assert main([*words, str(tmp_path / "fast"), "--time-scale", "30", "--interval", "1"]) == 0

    ours = CONTRACT.parent / "prometheus/rules"
    assert {file.name: file.read_text() for file in (tmp_path / "same").iterdir()} == {
        file.name: file.read_text() for file in ours.glob("*.gen.yml")
    }
    assert "rate(http_requests_total[10s])" in (tmp_path / "fast/http.gen.yml").read_text()
    assert f"wrote {tmp_path / 'fast/http.gen.yml'}" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "value"), [("--time-scale", "0"), ("--interval", "-1"), ("--interval", "soon")])
def test_rules_of_no_speed_are_refused(
    contract: Path, tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What windows are divided by, and the time between scrapes, are above 0."""
    with pytest.raises(SystemExit):
        main(["--contract", str(contract), "rules", str(tmp_path / "rules"), option, value])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"argument {option}: '{value}' is not above 0; give a number such as 30.")
    assert not (tmp_path / "rules").exists()


@pytest.mark.parametrize("words", [["generate"], ["generate", "--check"]])
def test_routes_that_cannot_be_reduced_are_one_line(
    contract: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An alertmanager.yml without the developers' route, whose intervals are needed, is said without a traceback."""
    folder = contract.parent / "alertmanager"
    folder.mkdir()
    (folder / "alertmanager.yml").write_text("route: {receiver: a, routes: [{receiver: a, matchers: []}]}\n")

    assert main(["--contract", str(contract), *words]) == 1
    assert capsys.readouterr().err == (
        "alertmanager.yml has no route to dev-team; add one, its intervals are needed.\n"
    )


@pytest.mark.parametrize("arguments", [["lint"], ["generate"]])
def test_a_contract_with_findings_is_not_rendered(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`lint` prints the findings and exits 1; `generate` does the same and writes nothing."""
    (tmp_path / "contract").mkdir()
    contract = small_contract(tmp_path / "contract", "How many.", "How many")

    assert main(["--contract", str(contract), *arguments]) == 1
    expected = ["requests_total: the description is one sentence with a full stop."]
    assert capsys.readouterr().err.splitlines() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["contract"]


def test_a_contract_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unreadable contract is one line on stderr and exit 1, without a traceback."""
    assert main(["--contract", str(tmp_path), "lint"]) == 1
    sentence = "it cannot be read (No such file or directory); name the folder with metrics.yaml."
    assert capsys.readouterr().err == f"{tmp_path}/metrics.yaml: {sentence}\n"


def test_without_pyyaml_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without PyYAML the command names the extra that brings it."""
    for module in [name for name in sys.modules if name.startswith("relay_otel.contract.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "yaml", None)

    assert main(["lint"]) == 1
    assert capsys.readouterr().err == "PyYAML is missing; pip install 'relay-otel[contract]'.\n"
