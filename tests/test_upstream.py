"""What is said about variables that OpenTelemetry's own packages read, and that they are taken away then."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relay_otel import upstream

GOOD = {
    "OTEL_EXPORTER_OTLP_TIMEOUT": "10",
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "0.5",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "deflate",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20abc==,x-scope=1",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": __file__,
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": __file__,
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": __file__,
    "OTEL_EXPORTER_OTLP_INSECURE": "True",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://a/v1/traces",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "CUMULATIVE",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "explicit_bucket_histogram",
    "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.25",
    "OTEL_PROPAGATORS": "tracecontext, baggage",
    "OTEL_PYTHON_ID_GENERATOR": "random",
    "OTEL_RESOURCE_ATTRIBUTES": "a=b,c=d=e,",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process,os",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database/dup",
    "OTEL_BSP_MAX_QUEUE_SIZE": "4096",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1024",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "unset",
    "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
}


def test_what_upstream_can_use_stays() -> None:
    """Values that upstream can use are left as they are, and nothing is said."""
    environ = dict(GOOD)

    assert ([], GOOD) == (upstream.repair(environ), environ)


@pytest.mark.parametrize("variable", upstream.VARIABLES)
def test_an_empty_variable_is_no_mistake(variable: str) -> None:
    """Empty counts as unset."""
    assert {} == upstream.check({variable: " "})


BAD = [
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "give seconds, like 10."),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "nan", "give seconds, like 10."),
    ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "zstd", "choose none, gzip or deflate."),
    ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/no/ca.pem",
     "it cannot be read (No such file or directory); name a readable file."),
    ("OTEL_EXPORTER_OTLP_INSECURE", "1", "choose true or false."),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector",
     "give a URL with scheme and host, like http://localhost:4318/v1/traces."),
    ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json", "choose http/protobuf or grpc."),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta",
     "relay-otel sends cumulative totals, which survive a lost export, and the collector drops deltas from apps; "
     "set it to cumulative or leave it unset."),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram",
     "/metrics has no text for exponential histograms; set it to explicit_bucket_histogram or leave it unset."),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "on", "choose trace_based, always_on or always_off."),
    ("OTEL_TRACES_SAMPLER_ARG", "50%", "give a share from 0 to 1, like 0.1."),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b,team", "'team' has no '='; give key=value pairs with commas between them."),
    ("OTEL_SEMCONV_STABILITY_OPT_IN", "htpp",
     "choose http, http/dup, database, database/dup or gen_ai_latest_experimental."),
    ("OTEL_BSP_SCHEDULE_DELAY", "5s", "give a whole number from 1, like 5000."),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "-1", "give a whole number from 1, like 2048."),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many", "give a whole number from 0, like 128."),
    ("FASTAPI_OTEL_AUTO_CONFIGURE", "1", "choose true or false."),
]  # fmt: skip


@pytest.mark.parametrize(("variable", "text", "repair"), BAD)
def test_what_upstream_cannot_use_is_said_and_taken_away(variable: str, text: str, repair: str) -> None:
    """One sentence with variable, value and repair; then the variable is unset, so that nobody trips over it."""
    environ = {variable: text, "OTHER": "1"}

    said = upstream.repair(environ)
    environ.pop("OTEL_TRACES_SAMPLER_ARG", None)  # its default stands there, for a sampler does not go without

    assert ([f"{variable} is {text!r}; {repair}"], {"OTHER": "1"}) == (said, environ)


@pytest.mark.parametrize(
    "variable",
    [
        each
        for each in upstream.VARIABLES
        if each.endswith(("SAMPLER", "PROPAGATORS", "GENERATOR", "DETECTORS", "VIDER"))
    ],
)
def test_a_name_that_no_package_has_is_said_with_those_that_are_there(variable: str) -> None:
    """Names of samplers, propagators, detectors and providers are looked up among what is installed."""
    (sentence,) = upstream.repair({variable: "nonesuch"})

    assert re.fullmatch(rf"{variable} is 'nonesuch'; no installed package has nonesuch; choose from \S.*\.", sentence)


def test_nothing_of_a_header_is_shown() -> None:
    """Headers hold secrets: the sentence names which of them is wrong by its number."""
    said = upstream.repair({"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer s3cret,s3cret"})

    assert [
        "OTEL_EXPORTER_OTLP_HEADERS is set; number 2 is no name=value; give pairs like 'authorization=Bearer%20x'."
    ] == said


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"OTEL_TRACES_SAMPLER": "traceidratio"},
         "OTEL_TRACES_SAMPLER is 'traceidratio', which needs a share; set OTEL_TRACES_SAMPLER_ARG, like 0.1."),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096"},
         "OTEL_BSP_MAX_EXPORT_BATCH_SIZE is '4096', more than the queue holds; "
         "give at most OTEL_BSP_MAX_QUEUE_SIZE (2048)."),
        ({"OTEL_BLRP_MAX_QUEUE_SIZE": "100"},
         "OTEL_BLRP_MAX_QUEUE_SIZE is '100', less than a batch of 512; set OTEL_BLRP_MAX_EXPORT_BATCH_SIZE=100 too."),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_COMPRESSION": "deflate"},
         "OTEL_EXPORTER_OTLP_COMPRESSION is 'deflate', which gRPC does not have; choose gzip or none."),
        ({"OTEL_EXPORTER_OTLP_CLIENT_KEY": __file__},
         f"OTEL_EXPORTER_OTLP_CLIENT_KEY is {__file__!r}, a key without a certificate; "
         "set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE too."),
    ],
)  # fmt: skip
def test_two_variables_that_do_not_fit_are_said(environ: dict[str, str], sentence: str) -> None:
    """What only goes wrong together is found together."""
    assert [sentence] == upstream.repair(environ)


def test_upstream_does_trip_over_some_of_them(tmp_path: Path) -> None:
    """The reason for it all: one variable of these makes an import of upstream's raise, in the middle of the app."""
    code = "import opentelemetry.propagate"
    environ = {**os.environ, "OTEL_PROPAGATORS": "nonesuch"}
    bare = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False, text=True)
    ours = subprocess.run(
        [sys.executable, "-c", f"import relay_otel; relay_otel.configure(export='none'); {code}"],
        env=environ,
        capture_output=True,
        check=False,
        text=True,
    )

    assert (1, 0) == (bare.returncode, ours.returncode)
    assert 1 == ours.stderr.count("OTEL_PROPAGATORS is 'nonesuch'")
