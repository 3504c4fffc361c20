"""What the demo has nothing of, and why: part of a query -> the reason. A panel that asks it may be empty there."""

from collections.abc import Mapping

QUIET: Mapping[str, str] = {}
"""None: the demo has something of all. What seldom happens is shown as 0."""
