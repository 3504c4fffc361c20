"""Variables that OpenTelemetry's own packages read, checked before they do. The environment in; sentences out.

Upstream raises at some values it cannot read, at the import of a module even, passes over others without a word, and
takes more down with a value than that value was for. So ``configure()`` says what cannot be used, once, and takes it
out of ``os.environ``: whoever reads it later finds it unset. What relay-otel itself reads is in settings.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from importlib.metadata import entry_points

from relay_otel.values import Read, Unusable, exporter_protocol, is_url, readable_file, without_password

SIGNALS = ("", "METRICS_", "TRACES_", "LOGS_")
SAMPLERS = ("always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
            "parentbased_traceidratio")  # fmt: skip
OPT_INS = ("http", "http/dup", "database", "database/dup", "gen_ai_latest_experimental")
HEADER = re.compile(r"[-\w!#$%&'*+.^`|~]+")


def _one_of(*words: str) -> Read:
    def read(value: str) -> str:
        if value.lower() in words:
            return value
        raise Unusable(f"choose {', '.join(words[:-1])} or {words[-1]}.")

    return read


def _installed(group: str, *besides: str) -> Read:
    """A name that a package has registered under ``group``, or one of ``besides``."""

    def read(value: str) -> str:
        known = {entry_point.name for entry_point in entry_points(group=group)} | set(besides)
        unknown = [name for name in map(str.strip, value.split(",")) if name and name not in known]
        if not unknown:
            return value
        raise Unusable(f"no installed package has {', '.join(unknown)}; choose from {', '.join(sorted(known))}.")

    return read


def _seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise Unusable("give seconds, like 10.")
    return number


def _whole(least: int, example: int, *, unset: bool = False) -> Read:
    def read(value: str) -> str:
        if (value.isdecimal() and int(value) >= least) or (unset and value.lower() == "unset"):
            return value
        raise Unusable(f"give a whole number from {least}, like {example}.")

    return read


def _pairs(value: str) -> str:
    for pair in filter(None, map(str.strip, value.split(","))):
        key, equals, _ = pair.partition("=")
        if not equals or not key.strip():
            raise Unusable(f"{pair!r} has no '='; give key=value pairs with commas between them.")
    return value


def _headers(value: str) -> str:
    # A header's value is a secret: nothing of it is shown.
    for number, pair in enumerate(filter(None, map(str.strip, value.split(","))), 1):
        key, equals, _ = pair.partition("=")
        if not equals or not HEADER.fullmatch(key.strip()) or not pair.isascii():
            raise Unusable(f"number {number} is no name=value; give pairs like 'authorization=Bearer%20x'.")
    return value


def _ratio(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise Unusable("give a share from 0 to 1, like 0.1.")
    return number


def _endpoint(value: str) -> str:
    if is_url(value):
        return value
    raise Unusable("give a URL with scheme and host, like http://localhost:4318/v1/traces.")


def _temporality(value: str) -> str:
    if value.lower() == "cumulative":
        return value
    raise Unusable(
        "relay-otel sends cumulative totals, which survive a lost export, and the collector drops deltas from apps; "
        "set it to cumulative or leave it unset."
    )


def _aggregation(value: str) -> str:
    if value.lower() == "explicit_bucket_histogram":
        return value
    raise Unusable(
        "/metrics has no text for exponential histograms; set it to explicit_bucket_histogram or leave it unset."
    )


def _for_each_signal(ending: str, read: Read) -> dict[str, Read]:
    return {f"OTEL_EXPORTER_OTLP_{signal}{ending}": read for signal in SIGNALS}


def _batch(prefix: str) -> dict[str, Read]:
    return {
        f"{prefix}_SCHEDULE_DELAY": _whole(1, 5000),
        f"{prefix}_EXPORT_TIMEOUT": _whole(1, 30_000),
        f"{prefix}_MAX_QUEUE_SIZE": _whole(1, 2048),
        f"{prefix}_MAX_EXPORT_BATCH_SIZE": _whole(1, 512),
    }


VARIABLES: Mapping[str, Read] = {
    **_for_each_signal("TIMEOUT", _seconds),
    **_for_each_signal("COMPRESSION", _one_of("none", "gzip", "deflate")),
    **_for_each_signal("HEADERS", _headers),
    **_for_each_signal("CERTIFICATE", readable_file),
    **_for_each_signal("CLIENT_KEY", readable_file),
    **_for_each_signal("CLIENT_CERTIFICATE", readable_file),
    **_for_each_signal("INSECURE", _one_of("true", "false")),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": _endpoint,
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": _endpoint,
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": exporter_protocol,
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": exporter_protocol,
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": _temporality,
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _aggregation,
    "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("trace_based", "always_on", "always_off"),
    "OTEL_METRIC_EXPORT_TIMEOUT": _whole(1, 30_000),
    "OTEL_TRACES_SAMPLER": _installed("opentelemetry_traces_sampler", *SAMPLERS),
    "OTEL_TRACES_SAMPLER_ARG": _ratio,
    "OTEL_PROPAGATORS": _installed("opentelemetry_propagator", "none"),
    "OTEL_PYTHON_ID_GENERATOR": _installed("opentelemetry_id_generator", "random"),
    "OTEL_PYTHON_TRACER_PROVIDER": _installed("opentelemetry_tracer_provider"),
    "OTEL_PYTHON_METER_PROVIDER": _installed("opentelemetry_meter_provider"),
    "OTEL_PYTHON_LOGGER_PROVIDER": _installed("opentelemetry_logger_provider"),
    "OTEL_RESOURCE_ATTRIBUTES": _pairs,
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": _installed("opentelemetry_resource_detector", "*"),
    "OTEL_SEMCONV_STABILITY_OPT_IN": lambda value: [_one_of(*OPT_INS)(word.strip()) for word in value.split(",")],
    **_batch("OTEL_BSP"),
    **_batch("OTEL_BLRP"),
    **{
        f"OTEL_{limited}_LIMIT": _whole(0, 128, unset=True)
        for limited in (
            "ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "EVENT_ATTRIBUTE_COUNT", "LINK_ATTRIBUTE_COUNT",
            "SPAN_ATTRIBUTE_COUNT", "SPAN_ATTRIBUTE_VALUE_LENGTH", "SPAN_EVENT_COUNT", "SPAN_LINK_COUNT",
            "LOGRECORD_ATTRIBUTE_COUNT", "LOGRECORD_ATTRIBUTE_VALUE_LENGTH",
        )
    },
    "FASTAPI_OTEL_AUTO_CONFIGURE": _one_of("true", "false"),
}  # fmt: skip
"""Each variable and how it is read; what is read is thrown away, only whether it can be counts."""


def check(environ: Mapping[str, str]) -> dict[str, str]:
    """Variable -> sentence, for each that upstream could not use as it stands."""
    wrong: dict[str, str] = {}
    for variable in sorted(VARIABLES.keys() & environ.keys()):
        text = environ[variable].strip()
        if not text:
            continue
        try:
            VARIABLES[variable](text)
        except Unusable as unusable:
            shown = "set" if variable.endswith("HEADERS") else repr(without_password(text))
            wrong[variable] = f"{variable} is {shown}; {unusable}"
    if "OTEL_TRACES_SAMPLER_ARG" not in wrong:
        wrong.update(_ratio_without_need(environ))
    for problem in (_batch_beyond_queue, _deflate_by_grpc, _key_without_certificate):
        wrong.update(
            problem({name: text.strip() for name, text in environ.items() if text.strip() and name not in wrong})
        )
    return wrong


def repair(environ: MutableMapping[str, str]) -> list[str]:
    """Take out what upstream could not use; the sentences about it, one for each variable."""
    wrong = check(environ)
    for variable in wrong:
        environ.pop(variable, None)
    if "OTEL_TRACES_SAMPLER_ARG" in wrong:
        environ["OTEL_TRACES_SAMPLER_ARG"] = "1"  # upstream's default, which it would take with a line of its own
    if environ.get("OTEL_EXPORTER_OTLP_COMPRESSION", "").lower() == "none":
        del environ["OTEL_EXPORTER_OTLP_COMPRESSION"]  # the gRPC exporters raise at the word; it is the default
    return list(wrong.values())


# -- what two variables say together --

Together = Callable[[Mapping[str, str]], dict[str, str]]


def _ratio_without_need(environ: Mapping[str, str]) -> dict[str, str]:
    variable = "OTEL_TRACES_SAMPLER_ARG"
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").lower()
    if sampler.endswith("traceidratio") and not environ.get(variable):
        return {
            "OTEL_TRACES_SAMPLER": f"OTEL_TRACES_SAMPLER is {sampler!r}, which needs a share; set {variable}, like 0.1."
        }
    return {}


def _batch_beyond_queue(environ: Mapping[str, str]) -> dict[str, str]:
    wrong = {}
    for prefix in ("OTEL_BSP", "OTEL_BLRP"):
        variable = f"{prefix}_MAX_EXPORT_BATCH_SIZE"
        batch, queue = environ.get(variable), environ.get(f"{prefix}_MAX_QUEUE_SIZE") or "2048"
        if batch and int(batch) > int(queue):
            wrong[variable] = (
                f"{variable} is {batch!r}, more than the queue holds; give at most {prefix}_MAX_QUEUE_SIZE ({queue})."
            )
        elif not batch and int(queue) < 512:  # upstream's default batch, which it would then refuse
            wrong[f"{prefix}_MAX_QUEUE_SIZE"] = (
                f"{prefix}_MAX_QUEUE_SIZE is {queue!r}, less than a batch of 512; set {variable}={queue} too."
            )
    return wrong


def _deflate_by_grpc(environ: Mapping[str, str]) -> dict[str, str]:
    wrong = {}
    for signal in SIGNALS[1:]:
        protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal}PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        for variable in (f"OTEL_EXPORTER_OTLP_{signal}COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"):
            if protocol == "grpc" and environ.get(variable, "").lower() == "deflate":
                wrong[variable] = f"{variable} is 'deflate', which gRPC does not have; choose gzip or none."
    return wrong


def _key_without_certificate(environ: Mapping[str, str]) -> dict[str, str]:
    wrong = {}
    for signal in SIGNALS:
        key, certificate = (f"OTEL_EXPORTER_OTLP_{signal}CLIENT_{part}" for part in ("KEY", "CERTIFICATE"))
        if environ.get(key) and not (environ.get(certificate) or environ.get("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")):
            wrong[key] = f"{key} is {environ[key]!r}, a key without a certificate; set {certificate} too."
    return wrong
