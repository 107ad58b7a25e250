"""The public API: routes by resource, wire types, problems, idempotency. A route is parse → call → render."""

from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.api.services import Services
from strongroom.api.surface import build_asgi

__all__ = ["Access", "Call", "Reply", "Route", "Services", "build_asgi"]
