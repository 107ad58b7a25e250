"""Who asks: API keys, the signatures that sign in, the tokens they get, and the certificates we answer with."""

from strongroom.identity.api_keys import (
    DEFAULT_NAME,
    MAX_KEYS,
    ApiKey,
    create_key,
    delete_key,
    get_key,
    list_keys,
    roles_for,
    update_key,
)
from strongroom.identity.certificates import Certificate, LocalAuthority, own_certificate
from strongroom.identity.hmac_signin import sign_in
from strongroom.identity.opening import OpenedAccount, open_account
from strongroom.identity.tokens import Issued, Tokens, load_or_make_tokens

__all__ = [
    "DEFAULT_NAME",
    "MAX_KEYS",
    "ApiKey",
    "Certificate",
    "Issued",
    "LocalAuthority",
    "OpenedAccount",
    "Tokens",
    "create_key",
    "delete_key",
    "get_key",
    "list_keys",
    "load_or_make_tokens",
    "open_account",
    "own_certificate",
    "roles_for",
    "sign_in",
    "update_key",
]
