"""A contract that cannot be read says so in one sentence: file, metric or field, value, repair."""

from pathlib import Path

import pytest

from relay_otel.contract.fields import ContractError
from relay_otel.contract.load import load
from tests.contract.small import small_contract

# what stands there -> what takes its place -> the sentence, after the folder
UNREADABLE = [
    ("file_format: definition/2", "file_format: definition/1",
     "metrics.yaml: file_format of the file is 'definition/1'; choose definition/2."),
    ("file_format: definition/2\n", "",
     "metrics.yaml: file_format of the file is missing; choose definition/2."),
    ("metrics:\n", "metrix:\n",
     "metrics.yaml: the file has the unknown key 'metrix'; known are file_format, attributes and metrics."),
    ("instrument: counter", "instrument: countr",
     "metrics.yaml: instrument of requests_total is 'countr'; "
     "choose counter, updowncounter, gauge or histogram."),
    ("    instrument: counter\n", "",
     "metrics.yaml: instrument of requests_total is missing; "
     "choose counter, updowncounter, gauge or histogram."),
    ("brief: How many.", "brief: no",
     "metrics.yaml: brief of requests_total is False; "
     "write text, in quotes if YAML takes it for something else."),
    ("unit: s", "unit: 1",
     "metrics.yaml: unit of http_request_duration_seconds is 1; "
     "write text, in quotes if YAML takes it for something else."),
    ("series_limit: 3", "series_limit: many",
     "metrics.yaml: series_limit of requests_total is 'many'; write a whole number of at least 1."),
    ("series_limit: 3", "series_limit: true",
     "metrics.yaml: series_limit of requests_total is True; write a whole number of at least 1."),
    ("limit: 9", "limit: 0",
     "metrics.yaml: limit of path is 0; write a whole number of at least 1."),
    ("series_limit: 3", "limit: 2",
     "metrics.yaml: requests_total has the unknown key 'limit'; "
     "known are part, buckets, series_limit, merge, emitted_by and status."),
    ("series_limit: 3", "1: 2",
     "metrics.yaml: requests_total has the key 1, which is not text; put it in quotes."),
    ("series_limit: 3", "emitted_by: robot",
     "metrics.yaml: emitted_by of requests_total is 'robot'; choose app, browser, rules, probe or cli."),
    ("series_limit: 3", "status: done",
     "metrics.yaml: status of requests_total is 'done'; choose planned or emitted."),
    ("part: http, series_limit: 3", "series_limit: 3",
     "metrics.yaml: part of requests_total is missing; choose http, db, llm, web, operations or own."),
    ("buckets: [0.1, 0.5]", "buckets: [0.1, half]",
     "metrics.yaml: buckets of http_request_duration_seconds is 'half'; write a list of numbers."),
    ("buckets: [0.1, 0.5]", "buckets: 0.1",
     "metrics.yaml: buckets of http_request_duration_seconds is 0.1; write a list of numbers."),
    ("{ref: path}, ", "{ref: paht}, ",
     "metrics.yaml: attributes of http_request_duration_seconds is 'paht'; "
     "describe it under attributes: or correct the ref."),
    ("[{ref: path}, {ref: environment}]", "[path, environment]",
     "metrics.yaml: attributes of http_request_duration_seconds is ['path', 'environment']; "
     "write a list of mappings, each with ref:."),
    ("type: {members: [{id: latency, value: latency}]}", "type: int",
     "metrics.yaml: type of slo is 'int'; write string, or members: with a list of {id, value}."),
    ("{id: latency, value: latency}", "{id: latency, value: yes}",
     "metrics.yaml: value of entry 1 of members is True; "
     "write text, in quotes if YAML takes it for something else."),
    ("annotations: {relay: {limit: 9}}", "annotations: {relay: 9}",
     "metrics.yaml: relay of path is 9; write a mapping of names to values."),
    ("  - key: slo\n", "  - key: slo\n    key: slo\n",
     "metrics.yaml: it is not YAML at line 6 (the key 'key' stands twice); correct that line."),
    ("metrics:\n", "metrics: [\n",
     "metrics.yaml: it is not YAML at line 10 (expected the node content, but found '-'); "
     "correct that line."),
    ("threshold_seconds: 0.5", "threshold_seconds: half",
     "slos.yaml: threshold_seconds of latency is 'half'; write a number."),
    ("{default: 99}", "{beta: 99}",
     "slos.yaml: targets of latency is {'beta': 99}; "
     "add default: for the environments that have none of their own."),
    ("{default: 99}", "{default: .nan}",
     "slos.yaml: default of targets of latency is nan; write a number."),
    ("threshold_seconds", "treshold_seconds",
     "slos.yaml: latency has the unknown key 'treshold_seconds'; "
     "known are name, description, targets and threshold_seconds."),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentence"), UNREADABLE)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    """An error names the file, the metric, the field and its value, and says what to write instead."""
    with pytest.raises(ContractError) as refused:
        load(small_contract(tmp_path, old, new))

    assert str(refused.value) == f"{tmp_path}/{sentence}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "it cannot be read (No such file or directory); name the folder with metrics.yaml."),
        (b"\xff\xfe\xff", "it cannot be read (not UTF-8 text); name the folder with metrics.yaml."),
        (b"a: \x00", "it is not YAML (unacceptable character #x0000: special characters are not allowed); "
                     "correct that line."),
        (b"", "it holds None; write a mapping with slos."),
        (b"- 1", "it holds [1]; write a mapping with slos."),
        (b"? [a]\n: 1", "it is not YAML at line 1 (found unhashable key); correct that line."),
    ],
)  # fmt: skip
def test_a_file_that_is_no_contract_is_one_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    """A file that is absent, binary, empty or of another shape is named, with what it should be."""
    slos = small_contract(tmp_path) / "slos.yaml"
    slos.unlink()
    if content is not None:
        slos.write_bytes(content)

    with pytest.raises(ContractError) as refused:
        load(tmp_path)

    assert str(refused.value) == f"{slos}: {sentence}"
