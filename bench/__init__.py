"""Benchmarks: what relay-otel costs beside what a user would have instead. ``python -m bench``; see README.md."""
