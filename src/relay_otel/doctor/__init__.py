"""A set-up in, running or not; what is wrong with it, why it matters and what helps out: ``relay-otel doctor``."""
