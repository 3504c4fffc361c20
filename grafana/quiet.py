"""What the demo has nothing of, and why: part of a query -> the reason. A panel that asks it may be empty there."""

from collections.abc import Mapping

QUIET: Mapping[str, str] = {
    "alertmanager_notifications_failed_total": "each message reaches its receiver",
}
