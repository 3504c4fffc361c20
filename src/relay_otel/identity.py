"""Settings and OpenTelemetry's variables in; whose points they are out: of the server, or of one process of it."""

from __future__ import annotations

import os
import uuid

from opentelemetry.sdk.resources import Resource

from relay_otel.settings import Settings


class Identity:
    """The resource of the server, and of one process of it.

    The instance id is the user's own (OTEL_RESOURCE_ATTRIBUTES), else the server's; a process adds its pid.
    """

    def __init__(self, settings: Settings) -> None:
        attributes = {"service.name": settings.service_name} if settings.service_name else {}
        self.server = Resource.create(attributes)
        self._named = "service.instance.id" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self.belong(self.instance_id if self._named else str(uuid.uuid4()))

    @property
    def service(self) -> str:
        return str(self.server.attributes.get("service.name", ""))

    @property
    def instance_id(self) -> str:
        return str(self.server.attributes.get("service.instance.id", ""))

    def belong(self, instance_id: str) -> None:
        """The server's id is this one, unless the user named another."""
        if not self._named:
            self.server = self.server.merge(Resource({"service.instance.id": instance_id}))

    @property
    def spans(self) -> Resource:
        """Of spans and log records, which nobody adds up: an id that the user named stays as it is."""
        return self.server if self._named else self.process

    @property
    def process(self) -> Resource:
        """The same in a forked child, but for the pid."""
        return self.server.merge(Resource({"service.instance.id": f"{self.instance_id}-{os.getpid()}"}))
