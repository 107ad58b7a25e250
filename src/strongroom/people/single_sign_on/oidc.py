"""OpenID Connect: the authorization code flow with PKCE, and logout that the provider begins.

After OpenID Connect Core 1.0 and Discovery 1.0, RFC 7636 (S256 only), RFC 9207 (the `iss` parameter) and RFC 9700. An
ID token counts only under a key that the provider publishes now, with an algorithm that we name, for us, from the
provider that was asked, for the request that is open. Keys are fetched again when a token names one that isn't known,
at most once in `REFETCH_AFTER`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from strongroom.kernel.clock import Clock
from strongroom.kernel.errors import Failure, StrongroomError, Unavailable
from strongroom.kernel.ids import new_uuid
from strongroom.outbound import Answer
from strongroom.people.keys import decode, encode
from strongroom.people.outside import Outside
from strongroom.people.single_sign_on.claims import Claims, refused, word
from strongroom.people.single_sign_on.providers import ClientAuthentication, OidcSettings, Provider

ALGORITHMS: Final = {
    "RS256": "sha256", "RS384": "sha384", "RS512": "sha512", "PS256": "sha256", "PS384": "sha384", "PS512": "sha512",
    "ES256": "sha256", "ES384": "sha384", "ES512": "sha512", "EdDSA": "sha512", "Ed25519": "sha512",
}  # fmt: skip
"""Signatures that count, each with the hash of its `at_hash`: asymmetric ones; never `none`, never a shared secret."""
SKEW: Final = timedelta(seconds=60)
"""How far apart a provider's clock and ours may be."""
MAX_TOKEN_AGE: Final = timedelta(minutes=10)
"""How old an ID token or a logout token may be."""
FETCHED_FOR: Final = timedelta(minutes=10)
"""How long a provider's metadata and keys are remembered."""
REFETCH_AFTER: Final = timedelta(seconds=30)
MAX_TOKEN: Final = 32_768
MAX_KEYS: Final = 50
MAX_GROUPS: Final = 1_000
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_FOR: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a provider publishes of itself (Discovery 1.0 section 3), as far as it matters here."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    says_issuer: bool = False
    """Answers of the authorization endpoint name their issuer (RFC 9207)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What a sign-in under way has to keep of itself."""

    nonce: str
    verifier: str = field(repr=False)


@dataclass(slots=True)
class _Known:
    """What this process remembers of one version of a provider."""

    metadata: Metadata | None = None
    metadata_at: datetime | None = None
    keys: Sequence[Key] = ()
    keys_at: datetime | None = None
    refetched_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """We, towards one provider. `redirect_uri` is where it sends browsers back to."""

    provider: Provider
    redirect_uri: str
    outside: Outside
    clock: Clock

    @property
    def settings(self) -> OidcSettings:
        """The provider's settings."""
        if self.provider.oidc is None:
            raise LookupError("this provider doesn't speak OpenID Connect")
        return self.provider.oidc

    async def find_metadata(self) -> Metadata:
        """The provider's metadata. Raises errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`) and errors.Unavailable."""
        known, now = self._known, self.clock.now()
        if known.metadata is None or known.metadata_at is None or now - known.metadata_at >= FETCHED_FOR:
            known.metadata = await self.fetch_metadata()
            known.metadata_at = now
        return known.metadata

    async def authorization_url(self, begun: Begun, state: str, login_hint: str, *, afresh: bool = False) -> str:
        """Where the browser goes; `afresh`: for a new proof (Core section 3.1.2.1). Raises as `find_metadata`."""
        metadata = await self.find_metadata()
        challenge = encode(hashlib.sha256(begun.verifier.encode()).digest())
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "state": state,
            "nonce": begun.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if login_hint:
            query["login_hint"] = login_hint
        if afresh:
            query |= {"prompt": "login", "max_age": "0"}
        glue = "&" if "?" in metadata.authorization_endpoint else "?"
        return f"{metadata.authorization_endpoint}{glue}{urlencode(query)}"

    async def read_answer(self, begun: Begun, query: Mapping[str, str]) -> Claims:
        """Who the browser that came back is, as the provider says.

        Raises errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`) and errors.Unavailable (`PROVIDER_UNAVAILABLE`).
        """
        metadata = await self.find_metadata()
        issuer = query.get("iss")
        if (issuer is None and metadata.says_issuer) or (issuer is not None and issuer != metadata.issuer):
            raise refused("it names another issuer, or none")
        if "error" in query:
            raise refused(f"the provider says {word(query['error'])}")
        if not query.get("code"):
            raise refused("it has no code")
        tokens = await self._redeem(metadata, query["code"], begun)
        id_token = _text(tokens, "id_token")
        claims = await self._read_token(metadata, id_token)
        self._check_id_token(claims, begun)
        access_token = _text(tokens, "access_token")
        if "at_hash" in claims and not _is_hash_of(access_token, claims["at_hash"], _algorithm(id_token)):
            raise refused("at_hash is not of the access token")
        if metadata.userinfo_endpoint and access_token and not _text(claims, "email"):
            claims = {**await self._userinfo(metadata, access_token, _text(claims, "sub")), **claims}
        return self._claims(claims)

    async def read_logout(self, token: str) -> tuple[str, str, str]:
        """The subject and session (one of them may be empty) that a logout token ends, and the token's own id.

        After OpenID Connect Back-Channel Logout 1.0 section 2.6; the caller sees to it that no id is taken twice.
        Raises as `read_answer`.
        """
        metadata = await self.find_metadata()
        claims = await self._read_token(metadata, token, is_logout=True)
        self._check_token(claims)
        events = claims.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
            raise refused("it is no logout token")
        if "nonce" in claims:
            raise refused("a logout token has no nonce")
        subject, session, token_id = _text(claims, "sub"), _text(claims, "sid"), _text(claims, "jti")
        if not subject and not session:
            raise refused("it names neither a subject nor a session")
        if not token_id:
            raise refused("it has no id")
        return subject, session, token_id

    async def check_keys(self) -> int:
        """How many keys the provider publishes that can be used. Raises as `read_answer`."""
        keys = await self._fetch_keys(await self.find_metadata())
        if not keys:
            raise refused("the provider publishes no key that can be used")
        return len(keys)

    @property
    def _known(self) -> _Known:
        known: _Known = self.outside.remember(("oidc", self.provider.version_id), _Known)
        return known

    async def fetch_metadata(self) -> Metadata:
        """The provider's metadata, as it is now. Raises as `find_metadata`."""
        issuer = self.settings.issuer
        said = _object(await self._get(issuer.rstrip("/") + "/.well-known/openid-configuration"), "metadata")
        if said.get("issuer") != issuer:
            raise refused("the provider's metadata names another issuer than the one that is set up")
        methods = said.get("code_challenge_methods_supported", ["S256"])
        if not isinstance(methods, list) or "S256" not in methods:
            raise refused("the provider doesn't know PKCE with S256")
        metadata = Metadata(
            issuer=issuer,
            authorization_endpoint=_text(said, "authorization_endpoint"),
            token_endpoint=_text(said, "token_endpoint"),
            jwks_uri=_text(said, "jwks_uri"),
            userinfo_endpoint=_text(said, "userinfo_endpoint"),
            says_issuer=said.get("authorization_response_iss_parameter_supported") is True,
        )
        for url in (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri):
            self.outside.destination(url)
        return metadata

    async def _redeem(self, metadata: Metadata, code: str, begun: Begun) -> Mapping[str, Any]:
        """The tokens for a code (RFC 6749 section 4.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": begun.verifier,
        }
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        settings = self.settings
        if settings.authentication is ClientAuthentication.KEY:
            form |= {
                "client_id": settings.client_id,
                "client_assertion_type": _ASSERTION,
                "client_assertion": self._assertion(metadata),
            }
        else:
            pair = f"{quote_plus(settings.client_id)}:{quote_plus(settings.client_secret)}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        answer = await self._ask("POST", metadata.token_endpoint, headers=headers, body=urlencode(form).encode())
        if answer.status != 200:
            raise refused(f"the code was not redeemed (status {answer.status}, {_error_in(answer)})")
        return _object(answer, "token answer")

    def _assertion(self, metadata: Metadata) -> str:
        """Who we are, signed (RFC 7523 section 3); for the issuer alone, as nobody else may use it."""
        now = self.clock.now()
        claims = {
            "iss": self.settings.client_id,
            "sub": self.settings.client_id,
            "aud": metadata.issuer,
            "jti": str(new_uuid()),
            "iat": int(now.timestamp()),
            "exp": int((now + _ASSERTION_FOR).timestamp()),
        }
        key = self.provider.key.ec_key()
        return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key, algorithms=["ES256"])

    async def _userinfo(self, metadata: Metadata, access_token: str, subject: str) -> Mapping[str, Any]:
        headers = {"authorization": f"Bearer {access_token}", "accept": "application/json"}
        said = _object(await self._ask("GET", metadata.userinfo_endpoint, headers=headers), "user info")
        if said.get("sub") != subject:
            raise refused("the user info is of somebody else")
        return said

    async def _read_token(self, metadata: Metadata, token: str, *, is_logout: bool = False) -> Mapping[str, Any]:
        """The claims of a token that the provider signed."""
        header = _header(token)
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise refused("it is not signed with an algorithm that counts")
        if "crit" in header or "enc" in header:
            raise refused("it asks for what isn't spoken here")
        kind = header.get("typ")
        if is_logout and kind not in {None, "JWT", "logout+jwt"}:
            raise refused("it is a token of another kind")
        if not is_logout and kind not in {None, "JWT"}:
            raise refused("it is a token of another kind")
        key = await self._find_key(metadata, header.get("kid"), algorithm)
        try:
            return jwt.decode(token, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError, TypeError):
            raise refused("its signature is not the provider's") from None

    async def _find_key(self, metadata: Metadata, key_id: object, algorithm: str) -> Key:
        known, now = self._known, self.clock.now()
        if known.keys_at is None or now - known.keys_at >= FETCHED_FOR:
            known.keys, known.keys_at = await self._fetch_keys(metadata), now
        found = _fitting(known.keys, key_id, algorithm)
        if not found and (known.refetched_at is None or now - known.refetched_at >= REFETCH_AFTER):
            known.refetched_at = now
            known.keys, known.keys_at = await self._fetch_keys(metadata), now
            found = _fitting(known.keys, key_id, algorithm)
        if len(found) != 1:
            raise refused("it is signed by a key that the provider doesn't publish, or doesn't name which one")
        return found[0]

    async def _fetch_keys(self, metadata: Metadata) -> Sequence[Key]:
        listed = _object(await self._get(metadata.jwks_uri), "key set").get("keys")
        if not isinstance(listed, list):
            raise refused("the provider's key set is none")
        keys: list[Key] = []
        for one in listed[:MAX_KEYS]:
            try:
                if isinstance(one, dict) and one.get("kty") in {"RSA", "EC", "OKP"} and one.get("use") != "enc":
                    keys.append(JWKRegistry.import_key(one))
            except (JoseError, ValueError, TypeError, KeyError):
                continue  # a key of a kind that isn't known here says nothing about the others
        return keys

    def _check_id_token(self, claims: Mapping[str, Any], begun: Begun) -> None:
        """OpenID Connect Core 1.0 section 3.1.3.7."""
        self._check_token(claims)
        if not hmac.compare_digest(_text(claims, "nonce").encode(), begun.nonce.encode()):
            raise refused("it was made for another request")
        if not _text(claims, "sub"):
            raise refused("it says of nobody")

    def _check_token(self, claims: Mapping[str, Any]) -> None:
        """What ID tokens and logout tokens have in common."""
        now, client = self.clock.now().timestamp(), self.settings.client_id
        if claims.get("iss") != self.settings.issuer:
            raise refused("it is of another issuer")
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or client not in audiences:
            raise refused("it is for somebody else")
        if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != client:
            raise refused("it was given to somebody else")
        issued, expires = _instant(claims, "iat"), _instant(claims, "exp")
        if now >= expires + SKEW.total_seconds():
            raise refused("it has expired")
        if issued > now + SKEW.total_seconds():
            raise refused("it is from the future; look at the clocks")
        if now - issued > (MAX_TOKEN_AGE + SKEW).total_seconds():
            raise refused("it is too old")
        if "nbf" in claims and _instant(claims, "nbf") > now + SKEW.total_seconds():
            raise refused("it doesn't count yet")

    def _claims(self, claims: Mapping[str, Any]) -> Claims:
        if "email_verified" in claims and not _is_true(claims["email_verified"]):
            raise refused("the provider itself says that the mail address isn't verified")
        return Claims(
            subject=_text(claims, "sub"),
            address=_text(claims, "email"),
            name=_text(claims, "name"),
            groups=groups_in(claims.get(self.settings.groups_claim)),
            session=_text(claims, "sid"),
            proven_at=self._proven_at(claims.get("auth_time")),
        )

    def _proven_at(self, said: object) -> datetime | None:
        """When somebody proved themselves, never in the future; None where that isn't said as Core section 2 has it."""
        if isinstance(said, bool) or not isinstance(said, int | float) or not said > 0:
            return None
        return datetime.fromtimestamp(min(said, self.clock.now().timestamp()), UTC)

    async def _get(self, url: str) -> Answer:
        return await self._ask("GET", url, headers={"accept": "application/json"})

    async def _ask(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        try:
            return await self.outside.request(method, url, headers=headers, body=body)
        except Unavailable as error:
            raise Unavailable(
                Failure("PROVIDER_UNAVAILABLE", "The provider didn't answer: {reason}.", {"reason": str(error)})
            ) from error


def new_begun() -> Begun:
    """A nonce and a PKCE verifier (RFC 7636 section 4.1) of 256 bits each."""
    return Begun(nonce=_random(), verifier=_random())


def groups_in(value: object) -> tuple[str, ...]:
    """The names in a claim of groups: a list of words, or one word."""
    listed = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(one for one in listed[:MAX_GROUPS] if isinstance(one, str) and one))


def _random() -> str:
    return encode(os.urandom(32))


def _header(token: str) -> Mapping[str, Any]:
    raw = decode(token.partition(".")[0]) if len(token) <= MAX_TOKEN and token.count(".") == 2 else None
    try:
        header = msgspec.json.decode(raw or b"")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise refused("it is no signed token")
    return header


def _algorithm(token: str) -> str:
    return str(_header(token).get("alg"))


def _fitting(keys: Sequence[Key], key_id: object, algorithm: str) -> Sequence[Key]:
    """The keys that a token may be signed by: of its id, or without one all, of the algorithm's type."""
    kinds = {"R": "RSA", "P": "RSA", "ES": "EC", "Ed": "OKP"}
    kind = kinds.get(algorithm[:2]) or kinds[algorithm[:1]]
    return [
        key
        for key in keys
        if key.key_type == kind
        and (key_id is None or key.kid == key_id)
        and key.get("alg") in {None, algorithm, "EdDSA" if algorithm == "Ed25519" else algorithm}
    ]


def _is_hash_of(access_token: str, given: object, algorithm: str) -> bool:
    """OpenID Connect Core 1.0 section 3.1.3.6: the left half of the token's hash."""
    digest = hashlib.new(ALGORITHMS[algorithm], access_token.encode()).digest()
    return isinstance(given, str) and hmac.compare_digest(given.encode(), encode(digest[: len(digest) // 2]).encode())


def _object(answer: Answer, what: str) -> Mapping[str, Any]:
    if answer.status != 200:
        raise refused(f"the provider's {what} has status {answer.status}")
    try:
        said = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise refused(f"the provider's {what} is no JSON object")
    return said


def _text(source: Mapping[str, Any], name: str) -> str:
    value = source.get(name)
    return value if isinstance(value, str) else ""


def _is_true(value: object) -> bool:
    """Whether a claim says yes; some providers write a word for it."""
    return value is True or value == "true"


def _instant(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1 << 40:
        raise refused(f"it doesn't say {name}")
    return float(value)


def _error_in(answer: Answer) -> str:
    """The word for what was wrong (RFC 6749 section 5.2)."""
    try:
        return word(_text(_object(Answer(status=200, headers={}, body=answer.body), "error"), "error"))
    except StrongroomError:
        return "no reason given"
