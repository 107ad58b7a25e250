"""The life of a tenant, every step from every status."""

from __future__ import annotations

import pytest

from strongroom.kernel.errors import Conflict
from strongroom.tenancy.lifecycle import TenantStatus, TenantStep, after

POSSIBLE = {
    ("AWAITING_APPROVAL", "approve"): "APPROVED",
    ("AWAITING_APPROVAL", "reject"): "REJECTED",
    ("AWAITING_APPROVAL", "update"): "AWAITING_APPROVAL",
    ("APPROVED", "update"): "APPROVED",
    ("APPROVED", "delete"): "DELETED",
    ("REJECTED", "delete"): "DELETED",
}


@pytest.mark.parametrize("status", TenantStatus)
@pytest.mark.parametrize("step", TenantStep)
def test_every_step_from_every_status(status: TenantStatus, step: TenantStep) -> None:
    expected = POSSIBLE.get((status.value, step.value))
    if expected is not None:
        assert after(status, step).value == expected
        return
    with pytest.raises(Conflict) as refused:
        after(status, step)
    assert refused.value.code == "TENANT_STATUS_CONFLICT"
    assert refused.value.failures[0].values == {"status": status.value, "step": step.value}
