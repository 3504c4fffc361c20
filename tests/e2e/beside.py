"""A program that sets up telemetry in the order of its arguments, then serves one request as one_request.py does.

    python -m tests.e2e.beside logfire relay

Its last line of stdout is JSON too: what is global, and which threads run.
"""

from __future__ import annotations

import json
import sys
import threading


def logfire() -> None:
    import logfire

    logfire.configure(send_to_logfire=False, console=False, inspect_arguments=False)


def provider() -> None:
    """A MeterProvider and a TracerProvider of the app's own, as a product without a distribution has them."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    trace.set_tracer_provider(TracerProvider())


def closed_provider() -> None:
    """A MeterProvider that is none of the SDK's and takes no readers."""
    from opentelemetry import metrics

    class Closed(metrics.NoOpMeterProvider):
        pass

    metrics.set_meter_provider(Closed())


def relay() -> None:
    import relay_otel

    relay_otel.configure()


for step in sys.argv[1:]:
    globals()[step]()

from opentelemetry import metrics, trace  # noqa: E402  # what they give depends on the steps

from tests.e2e import one_request  # noqa: E402

clicks = metrics.get_meter("shop").create_counter("shop.clicks", unit="{click}", description="Clicks.")
clicks.add(3, {"shop": "a"})
chats = metrics.get_meter("lib").create_counter("chat_messages_total")
chats.add(1, {"model": "m", "status": "success", "user_id_hash": "h"})
one_request.main()
print(
    json.dumps(
        {
            "meters": type(metrics.get_meter_provider()).__name__,
            "tracers": type(trace.get_tracer_provider()).__name__,
            "threads": sorted(thread.name for thread in threading.enumerate()),
        }
    )
)
