"""The same app by the one call instead of the wrapper: ``uvicorn examples.relay_chat.configured:app``."""

import relay_otel

relay_otel.configure()

from examples.relay_chat.app import app  # noqa: E402  # configured first, as most products' main module does

__all__ = ["app"]
