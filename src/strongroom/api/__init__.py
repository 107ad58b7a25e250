"""The public API: routes by resource, wire types, problems, idempotency. A route is parse → call → render."""

from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.api.surface import Services, build_asgi

__all__ = ["Access", "Call", "Reply", "Route", "Services", "build_asgi"]
