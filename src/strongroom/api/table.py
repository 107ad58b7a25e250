"""The route table: every route of the API, the busiest first, since they are tried in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from strongroom.api import (
    accounts,
    alerts,
    approvals,
    bulk,
    card_vault,
    customer_search,
    customer_vault,
    encryption_keys,
    ip_lists,
    keys,
    marketplace,
    notifications,
    oauth,
    openapi,
    openings,
    orders,
    reconciliation,
    roles,
    schemes,
    sign_in,
    single_sign_on,
    tenants,
    trust,
    users,
)
from strongroom.api.routing import Route

_ROUTES: Final[Sequence[Route]] = (
    *orders.ROUTES,
    *bulk.ROUTES,
    *approvals.ROUTES,
    *sign_in.ROUTES,
    *oauth.ROUTES,
    *customer_vault.ROUTES,
    *customer_search.ROUTES,
    *openings.ROUTES,
    *card_vault.ROUTES,
    *marketplace.ROUTES,
    *schemes.ROUTES,
    *tenants.ROUTES,
    *keys.ROUTES,
    *encryption_keys.ROUTES,
    *users.ROUTES,
    *single_sign_on.ROUTES,
    *roles.ROUTES,
    *accounts.ROUTES,
    *ip_lists.ROUTES,
    *reconciliation.ROUTES,
    *alerts.ROUTES,
    *notifications.ROUTES,
    *trust.ROUTES,
)
ROUTES: Final[Sequence[Route]] = (*_ROUTES, openapi.document_route(_ROUTES))
