"""Where a setting's value comes from, and what is said about one that cannot be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from relay_otel import settings
from relay_otel.settings import SETTINGS, Setting, Settings, read

ROOT = Path(__file__).resolve().parent.parent
BY_NAME = {row.name: row for row in SETTINGS}

# Per setting: the argument with its value, then for each variable in order a text and the value it means.
GOOD: dict[str, tuple[Any, list[tuple[str, Any]]]] = {
    "service_name": ("argued", [("ours", "ours"), ("otels", "otels")]),
    "environment": ("argued", [("beta", "beta")]),
    "export": ("none", [("otlp", "otlp"), ("prometheus", "prometheus")]),
    "endpoint": ("http://a:1", [("http://b:2", "http://b:2"), ("https://c/x", "https://c/x"), ("http://d", "http://d")]),
    "protocol": ("grpc", [("grpc", "grpc"), ("http/protobuf", "http/protobuf"), ("grpc", "grpc")]),
    "token": ("argued", [("t0ken", "t0ken")]),
    "token_file": (__file__, [("<file>", "<file>")]),
    "export_interval": (3.5, [("2000", 2.0), ("500", 0.5)]),
    "metrics_path": ("/argued", [("/numbers/", "/numbers")]),
    "metrics_token": ("argued", [("t0ken", "t0ken"), ("<file>", "from the file")]),
    "metrics_public": (True, [("yes", True)]),
    "metrics_port": (9000, [("9464", 9464), ("9465", 9465)]),
    "metrics_host": ("0.0.0.0", [("::1", "::1"), ("10.0.0.1", "10.0.0.1")]),
    "runtime_dir": ("/argued", [("/run/app", "/run/app")]),
    "prometheus_client": (True, [("1", True)]),
    "health_paths": (("/a",), [("/b, /c/", ("/b", "/c"))]),
    "excluded_urls": (("a",), [("b,c", ("b", "c")), ("d", ("d",)), ("e", ("e",))]),
    "http_semconv_metrics": (True, [("TRUE", True)]),
    "slow_query_seconds": (2.5, [("0.25", 0.25)]),
    "database_ping": (False, [("off", False)]),
    "llm": ("off", [("off", "off")]),
    "ledger": ("sqlite://", [("sqlite:///costs.db", "sqlite:///costs.db"), ("<file>", "from the file")]),
    "spool_dir": ("/a", [("/b", "/b")]),
    "spool_bytes": (2_000_000, [("1048576", 1_048_576)]),
    "spool_durability": ("power", [("memory", "memory")]),
    "prices": ("/dev/null", [("<file>", "<file>")]),
    "user_label": ("off", [("bucket", "bucket")]),
    "user_hash_key": ("k", [("key", "key"), ("<file>", "from the file")]),
    "llm_budget_day_usd": (5.0, [("0.5", 0.5)]),
    "llm_budget_month_usd": (50.0, [("100", 100.0)]),
    "browser_collector": ("http://a:1", [("https://b/x", "https://b/x")]),
    "browser_rate": (0, [("600", 600)]),
    "prometheus_url": ("http://a:1", [("https://user:secret@b/x", "https://user:secret@b/x")]),
    "strict": (True, [("1", True)]),
    "disabled": (True, [("on", True), ("true", True)]),
    "traces_exporter": ("argued", [("otlp", "otlp"), ("console", "console")]),
    "logs_exporter": ("argued", [("otlp", "otlp"), ("console", "console")]),
    "config_file": ("/dev/null", [("<file>", "<file>"), ("/dev/zero", "/dev/zero")]),
}  # fmt: skip


def value(found: Settings, row: Setting) -> Any:
    return getattr(found, row.name)


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_argument_then_ours_then_opentelemetrys_then_default(row: Setting, tmp_path: Path) -> None:
    """For every setting: the argument counts, else the first variable that is set, else the default."""
    token = tmp_path / "token"
    token.write_text("from the file\n")
    argument, texts = GOOD[row.name]
    texts = [
        (text.replace("<file>", str(token)), str(token) if meaning == "<file>" else meaning) for text, meaning in texts
    ]
    variables = [variable for variable, _ in row.variables]
    assert len(texts) == len(variables)
    environ = {variable: text for variable, (text, _) in zip(variables, texts, strict=True)}

    chosen = [read(environ, {row.name: argument})]
    expected = [(argument, f"configure({row.name}=)")]
    for variable, (_, meaning) in zip(variables, texts, strict=True):
        chosen.append(read(environ, {row.name: None}))
        expected.append((meaning, variable))
        del environ[variable]
    chosen.append(read(environ))
    expected.append((row.default, None))

    assert [(*each, []) for each in expected] == [
        (value(found, row), found.origins.get(row.name), [each for each in problems if "goes before it" not in each])
        for found, problems in chosen
    ]


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_counts_as_unset(row: Setting, empty: str) -> None:
    """An empty variable is no value and no mistake: what comes next in order counts."""
    found, problems = read(dict.fromkeys([variable for variable, _ in row.variables], empty))

    assert (Settings(), {}, []) == (found, dict(found.origins), problems)


@pytest.mark.parametrize("name", [n for n, row in BY_NAME.items() if isinstance(row.default, str | None)])
def test_an_empty_argument_counts_as_unset(name: str) -> None:
    """The same for arguments: a token that is empty must not be one that everybody knows."""
    found, problems = read({}, {name: ""})

    assert (Settings(), []) == (found, problems)


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_ours_is_spelled_relay(row: Setting) -> None:
    """The first variable of a setting is ours, the ones after it OpenTelemetry's (or ours, naming a file)."""
    names = [variable for variable, _ in row.variables]

    assert re.fullmatch(r"RELAY_OTEL_[A-Z_]+|RELAY_STAGE", names[0])
    assert all(name.startswith(("OTEL_", "RELAY_OTEL_")) for name in names[1:])


BAD = [
    ("RELAY_OTEL_EXPORT", "otpl", "choose otlp, prometheus, both or none."),
    ("RELAY_OTEL_EXPORT", "OTLP", "choose otlp, prometheus, both or none."),
    (
        "OTEL_METRICS_EXPORTER",
        "otlp,console",
        "choose otlp, prometheus, both with a comma between them, or none.",
    ),
    (
        "OTEL_METRICS_EXPORTER",
        "none,otlp",
        "choose otlp, prometheus, both with a comma between them, or none.",
    ),
    ("RELAY_OTEL_ENDPOINT", "localhost:4318", "give a URL with scheme and host, like http://localhost:4318."),
    ("RELAY_OTEL_ENDPOINT", "ftp://x", "give a URL with scheme and host, like http://localhost:4318."),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "give a URL with scheme and host, like http://localhost:4318."),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1", "give a URL with scheme and host, like http://localhost:4318."),
    (
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "http://x:port",
        "give a URL with scheme and host, like http://localhost:4318.",
    ),
    ("RELAY_OTEL_ENDPOINT", "http://x:99999", "give a URL with scheme and host, like http://localhost:4318."),
    (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "http/json",
        "choose http/protobuf or grpc.",
    ),
    ("OTEL_CONFIG_FILE", "/no/such/file", "it cannot be read (No such file or directory); name a readable file."),
    ("RELAY_OTEL_EXPORT_INTERVAL", "0", "give milliseconds from 1 to 86400000, like 10000."),
    ("OTEL_METRIC_EXPORT_INTERVAL", "10s", "give milliseconds from 1 to 86400000, like 10000."),
    ("OTEL_METRIC_EXPORT_INTERVAL", "-5", "give milliseconds from 1 to 86400000, like 10000."),
    ("OTEL_METRIC_EXPORT_INTERVAL", "nan", "give milliseconds from 1 to 86400000, like 10000."),
    ("OTEL_METRIC_EXPORT_INTERVAL", "inf", "give milliseconds from 1 to 86400000, like 10000."),
    ("RELAY_OTEL_METRICS_PATH", "metrics", "give a path that begins with '/', like /metrics."),
    ("RELAY_OTEL_METRICS_PUBLIC", "maybe", "choose true or false."),
    ("RELAY_OTEL_HEALTH_PATHS", "/health,ready", "give a path that begins with '/', like /metrics."),
    (
        "RELAY_OTEL_EXCLUDED_URLS",
        "a,(b",
        "'(b' is no regular expression (missing ), unterminated subpattern at position 0); separate them by commas.",
    ),
    ("RELAY_OTEL_HTTP_SEMCONV_METRICS", "2", "choose true or false."),
    (
        "RELAY_OTEL_BROWSER_COLLECTOR",
        "collector:4319",
        "give a URL with scheme and host, like http://localhost:4319.",
    ),
    (
        "RELAY_OTEL_BROWSER_RATE",
        "2/s",
        "give beacons a minute from 1 to 1000000, like 120, or 0 for no limit.",
    ),
    (
        "RELAY_OTEL_BROWSER_RATE",
        "-1",
        "give beacons a minute from 1 to 1000000, like 120, or 0 for no limit.",
    ),
    ("RELAY_OTEL_STRICT", "x", "choose true or false."),
    ("RELAY_OTEL_DISABLED", "x", "choose true or false."),
    ("OTEL_SDK_DISABLED", "x", "choose true or false."),
    (
        "RELAY_OTEL_METRICS_TOKEN_FILE",
        "/no/such/file",
        "it cannot be read (No such file or directory); name a readable file.",
    ),
    ("RELAY_OTEL_METRICS_TOKEN_FILE", "/", "it cannot be read (Is a directory); name a readable file."),
]


@pytest.mark.parametrize(("variable", "text", "repair"), BAD)
def test_a_bad_value_is_one_sentence_with_variable_value_and_repair(variable: str, text: str, repair: str) -> None:
    """A value that cannot be used never raises: the default stands in, and one sentence says what to do."""
    found, problems = read({variable: text})

    assert (Settings(), [f"{variable} is {text!r}; {repair}"]) == (found, problems)


def test_a_file_for_the_token_that_is_no_text_or_empty_is_said(tmp_path: Path) -> None:
    """The token's file must hold text; what it holds is never shown."""
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff\xfes3cret")
    sentences = [read({"RELAY_OTEL_METRICS_TOKEN_FILE": str(path)})[1] for path in (empty, binary)]

    assert [
        f"RELAY_OTEL_METRICS_TOKEN_FILE is {str(empty)!r}; the file is empty; put the secret into it."
    ] == sentences[0]
    assert 1 == len(sentences[1])
    assert "s3cret" not in sentences[1][0]
    assert sentences[1][0].startswith(f"RELAY_OTEL_METRICS_TOKEN_FILE is {str(binary)!r}; it cannot be read (")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("service_name", 5),
        ("export", "otpl"),
        ("export", ["otlp"]),
        ("endpoint", "localhost"),
        ("endpoint", "http://[::1"),
        ("export_interval", 0),
        ("export_interval", float("nan")),
        ("export_interval", "10"),
        ("export_interval", True),
        ("metrics_path", "metrics"),
        ("metrics_public", "yes"),
        ("metrics_public", 1),
        ("health_paths", "/health"),
        ("health_paths", ["health"]),
        ("health_paths", [5]),
        ("excluded_urls", ["("]),
        ("excluded_urls", 5),
        ("browser_collector", "collector:4319"),
        ("browser_rate", -1),
        ("browser_rate", True),
        ("browser_rate", 2.5),
        ("strict", 1),
        ("traces_exporter", object()),
    ],
)
def test_a_bad_argument_is_one_sentence_too(name: str, given: Any) -> None:
    """An argument that cannot be used is said with its name and value; the default stands in, nothing raises."""
    found, problems = read({}, {name: given})

    assert (Settings(), {}, 1) == (found, dict(found.origins), len(problems))
    assert problems[0].startswith(f"configure({name}={given!r}): ")
    assert problems[0].endswith(".")


def test_behind_a_bad_value_the_next_variable_counts() -> None:
    """A bad argument or variable is said, and what stands next in order is used."""
    environ = {"RELAY_OTEL_EXPORT_INTERVAL": "soon", "OTEL_METRIC_EXPORT_INTERVAL": "2000"}
    found, problems = read(environ, {"export_interval": -1})

    assert (2.0, "OTEL_METRIC_EXPORT_INTERVAL", 2) == (
        found.export_interval,
        found.origins["export_interval"],
        len(problems),
    )


@pytest.mark.parametrize("given", ["s3cret", b"s3cret", ["s3cret"], {"token": "s3cret"}])
def test_a_secret_is_never_shown(given: Any) -> None:
    """Neither the sentence about a token nor the settings' own text shows the token."""
    found, problems = read({}, {"metrics_token": given})

    assert "s3cret" not in repr(found) + str(problems)


def test_arguments_mean_what_the_variables_mean() -> None:
    """The same value written as an argument and as a variable is the same setting."""
    arguments: dict[str, Any] = {
        "metrics_path": "/numbers/",
        "health_paths": ["/up/", "/ok"],
        "excluded_urls": ["a{1,2}"],
    }
    by_argument, problems = read({}, arguments)
    by_variable, _ = read({"RELAY_OTEL_METRICS_PATH": "/numbers/", "RELAY_OTEL_HEALTH_PATHS": "/up/,/ok"})

    assert [] == problems
    assert (by_variable.metrics_path, by_variable.health_paths) == (by_argument.metrics_path, by_argument.health_paths)
    assert ("a{1,2}",) == by_argument.excluded_urls


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("deployment.environment.name=beta", "beta"),
        ("service.name=x, deployment.environment.name = beta ,y=z", "beta"),
        ("deployment.environment.name=pre%20production", "pre production"),
        ("deployment.environment.name=", "unknown"),
        ("deployment.environment.names=beta", "unknown"),
        ("deployment.environment.name", "unknown"),
    ],
)
def test_the_environment_may_come_from_the_resource(text: str, environment: str) -> None:
    """Without RELAY_STAGE deployment.environment.name of OTEL_RESOURCE_ATTRIBUTES counts, read as the SDK reads it."""
    found, problems = read({"OTEL_RESOURCE_ATTRIBUTES": text})

    assert (environment, []) == (found.environment, problems)


def test_relay_stage_outranks_the_resource() -> None:
    """RELAY_STAGE counts before OTEL_RESOURCE_ATTRIBUTES, an argument before both."""
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=a", "RELAY_STAGE": "b"}

    assert ["b", "c"] == [read(environ)[0].environment, read(environ, {"environment": "c"})[0].environment]


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, "http://localhost:4318/v1/metrics"),
        ({"RELAY_OTEL_ENDPOINT": "http://a:1/"}, "http://a:1/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1/base"}, "http://a:1/base/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://a:1/all"}, "http://a:1/all"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://a:1", "RELAY_OTEL_ENDPOINT": "http://b"}, "http://b/v1/metrics"),
    ],
)  # fmt: skip
def test_the_path_is_added_to_a_base_url_only(environ: dict[str, str], endpoint: str) -> None:
    """`/v1/metrics` is added to an endpoint, but not to OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, as the standard says."""
    assert endpoint == read(environ)[0].metrics_endpoint


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, "http://localhost:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "collector:4317"),
        ({"RELAY_OTEL_ENDPOINT": "https://a:1"}, "https://a:1"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:1"}, "http://a:1"),
    ],
)  # fmt: skip
def test_grpc_has_its_own_port_and_no_path(environ: dict[str, str], endpoint: str) -> None:
    """With gRPC the default port is 4317, no path is added, and host:port alone will do."""
    found, problems = read({**environ, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})

    assert (endpoint, []) == (found.metrics_endpoint, problems)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://localhost:4319"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "http://collector:4319"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector/base/"}, "https://collector:4319"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://me:s3cret@collector:1/v1/metrics"}, "http://collector:4319"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
         "http://collector:4319"),
        ({"RELAY_OTEL_ENDPOINT": "http://[::1]:4318"}, "http://[::1]:4319"),
        ({"RELAY_OTEL_ENDPOINT": "http://a:1", "RELAY_OTEL_BROWSER_COLLECTOR": "http://b:2/x"}, "http://b:2/x"),
    ],
)  # fmt: skip
def test_browsers_have_a_port_of_the_same_host(environ: dict[str, str], url: str) -> None:
    """Beacons go to port 4319 of the host that the app's own metrics go to, unless a URL is named for them."""
    found, problems = read(environ)

    assert (url, []) == (found.browser_endpoint, problems)


@pytest.mark.parametrize(
    ("protocol", "port", "sentence"),
    [
        ("http/protobuf", 4317, "the port of grpc, but http/protobuf is spoken; use port 4318 or set "
                                "OTEL_EXPORTER_OTLP_PROTOCOL=grpc."),
        ("grpc", 4318, "the port of http/protobuf, but grpc is spoken; use port 4317 or set "
                       "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf."),
        ("http/protobuf", 4318, None),
        ("grpc", 4317, None),
        ("grpc", 9999, None),
    ],
)  # fmt: skip
def test_a_port_of_the_other_protocol_is_said_and_used(protocol: str, port: int, sentence: str | None) -> None:
    """A protocol and a port that disagree are named; the value is used, for a collector may listen anywhere."""
    url = f"http://collector:{port}"
    found, problems = read({"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": url})

    expected = [] if sentence is None else [f"OTEL_EXPORTER_OTLP_ENDPOINT is {url!r}, {sentence}"]
    assert (url, expected) == (found.endpoint, problems)


def test_a_password_in_an_endpoint_is_never_shown() -> None:
    """Wherever an endpoint is named, user and password are left out."""
    urls = ["ftp://me:s3cret@host", "http://me:s3cret@host:4317", "http://me:s3cret@[::1", "me:s3cret@host:1"]
    said = [read({"RELAY_OTEL_ENDPOINT": url})[1] + read({}, {"endpoint": url})[1] for url in urls]

    assert [2, 2, 2, 2] == [len(problems) for problems in said]
    assert "s3cret" not in str(said)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("RELAY_OTEL_METRIC_PATH", "/m",
         "is '/m', but no setting has that name; did you mean RELAY_OTEL_METRICS_PATH?"),
        ("RELAY_OTEL_FLAVOUR", "mild", "is 'mild', but no setting has that name; the names are in docs/settings.md."),
        ("RELAY_OTEL_METRICS_TOKN_KEY", "s3cret",
         "is set, but no setting has that name; did you mean RELAY_OTEL_METRICS_TOKEN?"),
        ("RELAY_STAG", "beta", "is 'beta', which nobody reads; did you mean RELAY_STAGE?"),
    ],
)  # fmt: skip
def test_a_misspelt_name_is_said(variable: str, value: str, sentence: str) -> None:
    """A variable of ours that no setting has is said with the one that was meant; what may be a secret is not shown."""
    assert (Settings(), [f"{variable} {sentence}"]) == read({variable: value})


@pytest.mark.parametrize(("stage", "said"), [("production", True), ("beta", False), ("", False)])
def test_an_environment_in_the_code_that_hides_the_variable_is_said(stage: str, said: bool) -> None:
    """The argument goes before the variable, as everywhere; but alerts are routed by it, so it is not done silently."""
    found, problems = read({"RELAY_STAGE": stage}, {"environment": "beta"})

    sentence = (
        "RELAY_STAGE is 'production', but configure(environment='beta') goes before it; take the argument out of the "
        "code, and leave it to the variable."
    )
    assert (found.environment, problems) == ("beta", [sentence] if said else [])


def test_what_others_would_trip_over_is_listed() -> None:
    """OpenTelemetry's variables that could not be read are named, so that configure() can take them away."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "x:1", "OTEL_METRIC_EXPORT_INTERVAL": "soon", "RELAY_OTEL_EXPORT": "x"}

    assert {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_METRIC_EXPORT_INTERVAL"} == set(read(environ)[0].unusable)


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("otlp", (True, True)),
        ("prometheus", (False, True)),
        ("otlp,prometheus", (True, True)),
        (" prometheus , otlp ", (True, True)),
        ("none", (False, False)),
    ],
)
def test_otel_metrics_exporter_says_where_measurements_go(text: str, ways: tuple[bool, bool]) -> None:
    """OTEL_METRICS_EXPORTER=otlp leaves /metrics on; `none` turns both off."""
    found, problems = read({"OTEL_METRICS_EXPORTER": text})

    assert (ways, []) == ((found.otlp, found.prometheus), problems)


@pytest.mark.parametrize(
    ("text", "ways"),
    [("both", (True, True)), ("otlp", (True, False)), ("prometheus", (False, True)), ("none", (False, False))],
)
def test_relay_otel_export_is_exact(text: str, ways: tuple[bool, bool]) -> None:
    """RELAY_OTEL_EXPORT names exactly what is on; OTEL_SDK_DISABLED turns all off whatever it says."""
    found, _ = read({"RELAY_OTEL_EXPORT": text})
    off, _ = read({"RELAY_OTEL_EXPORT": text, "OTEL_SDK_DISABLED": "true"})

    assert (ways, (False, False)) == ((found.otlp, found.prometheus), (off.otlp, off.prometheus))


def test_the_settings_page_is_the_table() -> None:
    """docs/settings.md is what `make generate` writes."""
    assert settings.table() == (ROOT / "docs" / "settings.md").read_text()


def test_every_setting_has_its_row_in_the_page() -> None:
    """Each setting stands in the page with all its variables and its sentence."""
    lines = settings.table().splitlines()
    for row in SETTINGS:
        (line,) = [line for line in lines if line.startswith(f"| `{row.name}` |")]
        assert all(f"`{variable}`" in line for variable, _ in row.variables)
        assert row.sentence in line


def test_every_variable_of_ours_stands_in_the_table() -> None:
    """No file of the package reads a RELAY variable that the settings do not name."""
    known = {variable for row in SETTINGS for variable, _ in row.variables}
    found = {
        name: path.name
        for path in (ROOT / "src" / "relay_otel").rglob("*.py")
        for name in re.findall(r"(?<![A-Z_.])RELAY_(?:OTEL_[A-Z_]*[A-Z]|STAGE)\b", path.read_text())
        if re.search(rf"[\"'`]{name}[\"'`=]", path.read_text())
    }

    known |= settings.OTHER_VARIABLES
    assert {} == {name: where for name, where in found.items() if name not in known}
    assert known >= {"RELAY_OTEL_STRICT", "RELAY_STAGE"} <= set(found)


def test_configure_takes_every_setting_but_those_that_only_variables_set() -> None:
    """configure() has an argument for each setting; `disabled` is for the environment alone, and the command line asks
    Prometheus, no app does."""
    import inspect

    import relay_otel

    alone = {"disabled", "prometheus_url"}
    assert {row.name for row in SETTINGS} - alone == set(inspect.signature(relay_otel.configure).parameters)
