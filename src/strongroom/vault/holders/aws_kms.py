"""A holder in the cloud: AWS Key Management Service.

The key is a symmetric KMS key (SYMMETRIC_DEFAULT: AES-256-GCM in AWS's own modules), named by its id or ARN. Encrypt
and Decrypt take the context as the encryption context, which AWS authenticates and writes into the customer's
CloudTrail, in hexadecimal; so a context must hold no secret. The wrapped key is AWS's own ciphertext.

What is allowed is AWS's to say: kms:Encrypt, kms:Decrypt and kms:DescribeKey on that key. That a key is disabled, or
waits for its deletion, counts at the next use; DescribeKey is asked before each, as not every KMS of this wire format
refuses to decrypt then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.secret import Secret
from strongroom.vault.holders._calls import Calls
from strongroom.vault.holders.contract import (
    KEY_BYTES,
    MAX_CONTEXT_BYTES,
    MAX_WRAPPED_BYTES,
    HeldKey,
    HeldState,
    KeyUnavailable,
    Reason,
    wrapped_key_broken,
)

T = TypeVar("T")
THREADS: Final = 4
CONTEXT_NAME: Final = "strongroom"
"""The name under which the encryption context has our context."""
_SYMMETRIC: Final = "SYMMETRIC_DEFAULT"
_STATES: Final[Mapping[str, HeldState]] = {
    "Enabled": HeldState.ENABLED,
    "Disabled": HeldState.DISABLED,
    "PendingDeletion": HeldState.DISABLED,
    "PendingReplicaDeletion": HeldState.DISABLED,
    "PendingImport": HeldState.DISABLED,
    "Creating": HeldState.DISABLED,
    "Updating": HeldState.ENABLED,
}
"""Key states (AWS KMS developer guide, Key states of AWS KMS keys). `Unavailable`, a custom store that is cut off, and
any that is new, is a holder that is away."""
_REASONS: Final[Mapping[str, Reason]] = {
    "DisabledException": Reason.DISABLED,
    "KMSInvalidStateException": Reason.DISABLED,
    "NotFoundException": Reason.GONE,
    "AccessDeniedException": Reason.DENIED,
    "UnrecognizedClientException": Reason.DENIED,
    "InvalidClientTokenId": Reason.DENIED,
    "InvalidSignatureException": Reason.DENIED,
    "ExpiredTokenException": Reason.DENIED,
    "ThrottlingException": Reason.THROTTLED,
    "LimitExceededException": Reason.THROTTLED,
    "TooManyRequestsException": Reason.THROTTLED,
    "DependencyTimeoutException": Reason.SLOW,
}
_BROKEN: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})


class AwsKmsHolder:
    """Keys in AWS KMS; implements `contract.Holder`."""

    def __init__(
        self,
        name: str,
        *,
        region: str,
        limit_s: float,
        endpoint: str | None = None,
        profile: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        """KMS of an AWS region, or another `endpoint` (of a private network, say), with a profile's credentials.

        Without a profile the SDK looks for credentials as it always does. A call takes `limit_s` seconds at most, with
        no retry: whoever needs the key asks again.
        """
        self._name = name
        self._calls = Calls(name, threads=THREADS, limit_s=limit_s)
        self._limit_s = limit_s
        self._where: dict[str, Any] = {"region_name": region, "endpoint_url": endpoint}
        if ca_file is not None:
            self._where["verify"] = ca_file
        self._profile = profile
        self._made: Any = None

    @property
    def name(self) -> str:
        """See `contract.Holder.name`."""
        return self._name

    async def wrap(self, reference: str, key: Secret[bytes], context: bytes) -> bytes:
        """See `contract.Holder.wrap`."""
        if len(key.reveal()) != KEY_BYTES or len(context) > MAX_CONTEXT_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, a context at most {MAX_CONTEXT_BYTES}")
        key_id = _key_id(reference)

        def encrypt(kms: Any) -> Any:
            self._check(kms, key_id)
            return kms.encrypt(KeyId=key_id, Plaintext=key.reveal(), EncryptionContext=_context(context))

        wrapped = _bytes(await self._call(encrypt), "CiphertextBlob")
        if not KEY_BYTES < len(wrapped) <= MAX_WRAPPED_BYTES:
            raise KeyUnavailable(self._name, Reason.NONSENSE, f"{len(wrapped)} bytes for a wrapped key")
        return wrapped

    async def unwrap(self, reference: str, wrapped: bytes, context: bytes) -> Secret[bytes]:
        """See `contract.Holder.unwrap`."""
        if not KEY_BYTES < len(wrapped) <= MAX_WRAPPED_BYTES:
            raise wrapped_key_broken(self._name)
        key_id = _key_id(reference)

        def decrypt(kms: Any) -> Any:
            arn = self._check(kms, key_id)
            try:
                answer = kms.decrypt(KeyId=key_id, CiphertextBlob=wrapped, EncryptionContext=_context(context))
            except ClientError as error:
                # AWS also says so of a ciphertext that names a key which we don't see.
                if _code(error) == "AccessDeniedException" and _may_decrypt(kms, key_id, _context(context)):
                    raise wrapped_key_broken(self._name) from None
                raise
            if not answer.get("KeyId"):
                raise KeyUnavailable(self._name, Reason.NONSENSE)
            if answer["KeyId"] != arn:
                raise wrapped_key_broken(self._name)
            return answer

        key = _bytes(await self._call(decrypt), "Plaintext")
        if len(key) != KEY_BYTES:
            raise KeyUnavailable(self._name, Reason.NONSENSE, f"{len(key)} bytes for a key")
        return Secret(key)

    async def describe(self, reference: str) -> HeldKey:
        """See `contract.Holder.describe`."""
        key_id = _key_id(reference)
        try:
            about = await self._call(lambda kms: self._about(kms, key_id))
        except KeyUnavailable as error:
            if error.reason is not Reason.GONE:
                raise
            return HeldKey(reference=reference, algorithm="", is_extractable=False, state=HeldState.GONE)
        spec = str(about.get("KeySpec", ""))
        return HeldKey(
            reference=reference,
            algorithm="AES-256" if spec == _SYMMETRIC else spec,
            is_extractable=False,
            state=self._state(about),
        )

    async def close(self) -> None:
        """See `contract.Holder.close`."""
        self._calls.close()

    def _check(self, kms: Any, key_id: str) -> object:
        """The key's ARN. Raises KeyUnavailable unless it is enabled, and an AES-256 key."""
        about = self._about(kms, key_id)
        if about.get("KeySpec") != _SYMMETRIC:
            raise KeyUnavailable(self._name, Reason.UNFIT)
        if self._state(about) is not HeldState.ENABLED:
            raise KeyUnavailable(self._name, Reason.DISABLED)
        return about.get("Arn")

    def _state(self, about: Mapping[str, Any]) -> HeldState:
        stated = str(about.get("KeyState", ""))
        if stated not in _STATES:
            raise KeyUnavailable(self._name, Reason.AWAY, f"the key's state is {stated!r}")
        return _STATES[stated]

    def _about(self, kms: Any, key_id: str) -> Mapping[str, Any]:
        about = kms.describe_key(KeyId=key_id).get("KeyMetadata")
        if not isinstance(about, dict):
            raise KeyUnavailable(self._name, Reason.NONSENSE)
        return about

    async def _call(self, function: Callable[[Any], T]) -> T:
        return await self._calls.call(lambda: self._translated(function))

    def _translated(self, function: Callable[[Any], T]) -> T:
        """What AWS answers; what it refuses, and what went wrong on the way, in our words."""
        try:
            return function(self._client())
        except ClientError as error:
            code = _code(error)
            if code in _BROKEN:
                raise wrapped_key_broken(self._name) from None
            raise KeyUnavailable(self._name, _REASONS.get(code, Reason.AWAY), code) from None
        except (ConnectTimeoutError, ReadTimeoutError):
            raise KeyUnavailable(self._name, Reason.SLOW) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise KeyUnavailable(self._name, Reason.DENIED, "there are no credentials") from None
        except ResponseParserError:
            raise KeyUnavailable(self._name, Reason.NONSENSE) from None
        except BotoCoreError as error:
            raise KeyUnavailable(self._name, Reason.AWAY, type(error).__name__) from None
        except (AttributeError, TypeError, ValueError, LookupError):
            # How the SDK's parser takes JSON that isn't what its model says.
            raise KeyUnavailable(self._name, Reason.NONSENSE) from None

    def _client(self) -> Any:
        """The SDK's client, made in the thread that needs it first, as that takes a moment; threads may share it."""
        if self._made is None:
            config = Config(
                connect_timeout=self._limit_s,
                read_timeout=self._limit_s,
                retries={"total_max_attempts": 1},
                max_pool_connections=THREADS,
            )
            session = boto3.session.Session(profile_name=self._profile)
            self._made = session.client("kms", config=config, **self._where)
        return self._made


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _may_decrypt(kms: Any, key_id: str, context: dict[str, str]) -> bool:
    """Whether something that is encrypted now opens again."""
    try:
        sealed = kms.encrypt(KeyId=key_id, Plaintext=bytes(1), EncryptionContext=context)["CiphertextBlob"]
        kms.decrypt(KeyId=key_id, CiphertextBlob=sealed, EncryptionContext=context)
    except ClientError:
        return False
    return True


def _bytes(answer: Mapping[str, Any], name: str) -> bytes:
    found = answer.get(name, b"")
    return found if isinstance(found, bytes) else b""


def _context(context: bytes) -> dict[str, str]:
    return {CONTEXT_NAME: context.hex()}


def _key_id(reference: str) -> str:
    """A reference that names a key and no other ever after: not an alias, which can be pointed elsewhere."""
    tail = reference.rpartition("key/")[2] if reference.startswith("arn:") else reference
    is_arn = not reference.startswith("arn:") or (":kms:" in reference and ":key/" in reference)
    if not is_arn or not tail.replace("-", "").isalnum() or not tail.isascii() or len(reference) > 2048:
        raise Invalid(
            Failure("KEY_REFERENCE_INVALID", "A key in AWS KMS is called by its key id or key ARN, not by an alias.")
        )
    return reference
