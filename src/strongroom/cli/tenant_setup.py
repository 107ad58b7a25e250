"""The tenant that files are sent for: made through the public API, as a client would make it, and remembered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from strongroom.cli.client import Client, Key
from strongroom.cli.sending import Schemes
from strongroom.identity.certificates import write_private
from strongroom.kernel.ids import TenantId
from strongroom.kernel.secret import Secret
from strongroom.rails.marketplace import SEPA_COUNTRIES, SEPA_CREDIT_TRANSFER, SIMULATOR

PAYING_ACCOUNT: Final[Mapping[str, str]] = {
    "holder": "Fjord & Alpine Mutual Insurance",
    "iban": "DE75512108001245126199",
    "bic": "SOGEDEFFXXX",
    "street": "Speicherstraße",
    "building": "12",
    "postCode": "60327",
    "town": "Frankfurt am Main",
    "country": "DE",
}
"""The account that a made-up insurer pays from: a published example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A tenant's key, and the schemes that carry its payments."""

    key: Key
    schemes: Schemes

    @property
    def tenant_id(self) -> TenantId:
        """The tenant's id."""
        return TenantId(UUID(self.key.tenant_id))


async def make_tenant(url: str, account_key: Key, *, trust: Path | None) -> Setup:
    """A new tenant with a key, both rails, and a scheme for each direction. Raises as `Client.request` does."""
    async with Client(url, account_key, trust=trust) as client:
        tenant_id = (await client.post("/v1/account/tenants", {"name": "Claims and premiums"}))["tenantId"]
        roles = {"name": "Claims system", "roles": ["tenant-admin"]}
        made = await client.post(f"/v1/tenant/{tenant_id}/keys", roles)
    key = Key(
        account_id=account_key.account_id,
        tenant_id=tenant_id,
        public_key=made["publicKey"],
        private_key=Secret(made["privateKey"]),
    )
    async with Client(url, key, trust=trust) as client:
        for app_id in (SIMULATOR, SEPA_CREDIT_TRANSFER):
            await client.post(f"/v1/marketplace/apps/{app_id}/install")
        await client.post(f"/v1/apps/installed/{SEPA_CREDIT_TRANSFER}/configuration", PAYING_ACCOUNT)
        return Setup(key=key, schemes=await _make_schemes(client))


def read_setup(path: Path) -> Setup:
    """The setup that `write_setup` kept."""
    kept = json.loads(path.read_text())
    return Setup(
        key=Key(
            account_id=kept["accountId"],
            tenant_id=kept["tenantId"],
            public_key=kept["publicKey"],
            private_key=Secret(kept["privateKey"]),
        ),
        schemes=Schemes(collect=kept["collectSchemeId"], payout=kept["payoutSchemeId"]),
    )


def write_setup(path: Path, setup: Setup) -> None:
    """Keep a setup, the private key included, in a file that only its owner can read (0600)."""
    kept = {
        "accountId": setup.key.account_id,
        "tenantId": setup.key.tenant_id,
        "publicKey": setup.key.public_key,
        "privateKey": setup.key.private_key.reveal(),
        "collectSchemeId": setup.schemes.collect,
        "payoutSchemeId": setup.schemes.payout,
    }
    write_private(path, json.dumps(kept, indent=2).encode())


async def _make_schemes(client: Client) -> Schemes:
    """Payouts in euro within SEPA go by file, with the provider as fallback; everything else goes to the provider."""
    to_provider = {"apps": [{"appId": SIMULATOR}]}
    by_file = {
        "currencies": ["EUR"],
        "countries": sorted(SEPA_COUNTRIES),
        "apps": [{"appId": SEPA_CREDIT_TRANSFER}, {"appId": SIMULATOR}],
    }
    payout = {"name": "Claims", "code": "claims", "rules": [by_file, to_provider]}
    collect = {"name": "Premiums", "code": "premiums", "agreementType": "Reuse", "rules": [to_provider]}
    return Schemes(payout=await _publish(client, "payout", payout), collect=await _publish(client, "collect", collect))


async def _publish(client: Client, kind: str, draft: Mapping[str, object]) -> str:
    scheme = await client.post(f"/v1/schemes/{kind}", draft)
    scheme_id = str(scheme["schemeId"])
    await client.post(f"/v1/schemes/{kind}/{scheme_id}/drafts/{scheme['drafts'][0]['draftId']}/publish")
    return scheme_id
