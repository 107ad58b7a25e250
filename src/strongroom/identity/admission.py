"""Who a request is from: the token that it brings, the proof that belongs to it, and how often its key has asked."""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.database import Databases
from strongroom.identity.clients import spend_nonce
from strongroom.identity.dpop import Proofs, Target
from strongroom.identity.rates import Rates
from strongroom.identity.tokens import AccessToken, Tokens
from strongroom.kernel.actors import Actor
from strongroom.kernel.errors import Failure, Unauthenticated
from strongroom.kernel.networks import Address


@dataclass(slots=True, kw_only=True)
class Admission:
    """Lets requests in."""

    databases: Databases
    tokens: Tokens
    proofs: Proofs
    rates: Rates

    async def admit(self, authorization: str, proof: str, target: Target, source: Address | None) -> Actor:
        """The actor of a request from the headers `Authorization` and `DPoP`.

        A token without a binding comes as `Bearer`; one that is bound to a key as `DPoP`, with a proof (RFC 9449
        section 7).

        Raises errors.Unauthenticated (`TOKEN_REQUIRED`, `TOKEN_INVALID`, `TOKEN_EXPIRED`, `TOKEN_REVOKED`,
        `TOKEN_OF_OTHER_ENVIRONMENT`, `TOKEN_IS_BOUND`, `TOKEN_IS_NOT_BOUND`, `DPOP_PROOF_REFUSED`,
        `DPOP_NONCE_REQUIRED`, `DPOP_PROOF_REPLAYED`) and errors.TooOften (`REQUEST_RATE_EXCEEDED`).
        """
        scheme, _, token = authorization.partition(" ")
        kind, token = scheme.lower(), token.strip()
        if kind not in {"bearer", "dpop"} or not token:
            raise Unauthenticated(
                Failure(
                    "TOKEN_REQUIRED",
                    "Send `Authorization: Bearer …` with a token from POST /v1/identity/hmac or POST /oauth/token.",
                )
            )
        access = self.tokens.read(token, source)
        if access.proof_key is not None or kind == "dpop":
            await self._check_proof(access, kind, token, proof, target)
        if access.per_minute is not None and access.actor.key_id is not None:
            await self.rates.spend(access.actor.key_id, access.per_minute)
        return access.actor

    async def _check_proof(self, access: AccessToken, kind: str, token: str, proof: str, target: Target) -> None:
        actor = access.actor
        if access.proof_key is None or actor.key_id is None:
            raise Unauthenticated(
                Failure("TOKEN_IS_NOT_BOUND", "This token is bound to no key. Send it as `Authorization: Bearer …`.")
            )
        if kind != "dpop":
            raise Unauthenticated(
                Failure(
                    "TOKEN_IS_BOUND",
                    "This token is bound to a key. Send it as `Authorization: DPoP …`, and a proof in the header DPoP.",
                )
            )
        proven = self.proofs.check(proof, target, token=token, key=access.proof_key)
        async with self.databases.operation(actor, account=actor.account_id, tenant=actor.tenant_id) as op:
            await spend_nonce(op, actor.key_id, proven.nonce, code="DPOP_PROOF_REPLAYED")
