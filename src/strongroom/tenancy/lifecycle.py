"""The life of a tenant: awaiting approval → approved or rejected → deleted. Nothing leads back."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from strongroom.kernel.errors import Conflict, Failure


class TenantStatus(enum.StrEnum):
    """Where a tenant is in its life. Only an approved one can act."""

    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    DELETED = "DELETED"


class TenantStep(enum.StrEnum):
    """What can be done to a tenant as a whole."""

    APPROVE = "approve"
    REJECT = "reject"
    UPDATE = "update"
    DELETE = "delete"


_STATUS = TenantStatus
_STEP = TenantStep
STEPS: Final[Mapping[tuple[TenantStatus, TenantStep], TenantStatus]] = MappingProxyType(
    {
        (_STATUS.AWAITING_APPROVAL, _STEP.APPROVE): _STATUS.APPROVED,
        (_STATUS.AWAITING_APPROVAL, _STEP.REJECT): _STATUS.REJECTED,
        (_STATUS.AWAITING_APPROVAL, _STEP.UPDATE): _STATUS.AWAITING_APPROVAL,
        (_STATUS.APPROVED, _STEP.UPDATE): _STATUS.APPROVED,
        (_STATUS.APPROVED, _STEP.DELETE): _STATUS.DELETED,
        (_STATUS.REJECTED, _STEP.DELETE): _STATUS.DELETED,
    }
)
"""All that is possible: (status, step) → the status after it."""


def after(status: TenantStatus, step: TenantStep) -> TenantStatus:
    """The status after a step. Raises errors.Conflict (`TENANT_STATUS_CONFLICT`) when it isn't possible now."""
    result = STEPS.get((status, step))
    if result is None:
        raise Conflict(
            Failure(
                "TENANT_STATUS_CONFLICT",
                "This tenant's status is {status}, in which this is not possible: {step}.",
                {"status": status.value, "step": step.value},
            )
        )
    return result
