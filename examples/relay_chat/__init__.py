"""The demo product: a chat app, traffic for it, and what relay-otel shows of both."""
