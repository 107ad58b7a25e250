"""Who asks: API keys, what they sign in with, the tokens they get, and the certificates we answer with."""

from strongroom.identity.admission import Admission
from strongroom.identity.api_keys import (
    DEFAULT_NAME,
    MAX_KEYS,
    ApiKey,
    create_key,
    delete_key,
    get_key,
    list_keys,
    register_key,
    roles_for,
    update_key,
)
from strongroom.identity.certificates import Certificate, LocalAuthority, own_certificate
from strongroom.identity.dpop import Proofs, Target
from strongroom.identity.hmac_signin import sign_in
from strongroom.identity.opening import OpenedAccount, open_account
from strongroom.identity.public_keys import ALGORITHMS as PUBLIC_KEY_ALGORITHMS
from strongroom.identity.public_keys import PublicKey, read_public_keys
from strongroom.identity.rates import Rates
from strongroom.identity.signing_keys import SigningKeys, rotate_signing_key
from strongroom.identity.token_endpoint import Form, TokenEndpoint
from strongroom.identity.tokens import ALGORITHM, Issued, Tokens, load_or_make_tokens

__all__ = [
    "ALGORITHM",
    "DEFAULT_NAME",
    "MAX_KEYS",
    "PUBLIC_KEY_ALGORITHMS",
    "Admission",
    "ApiKey",
    "Certificate",
    "Form",
    "Issued",
    "LocalAuthority",
    "OpenedAccount",
    "Proofs",
    "PublicKey",
    "Rates",
    "SigningKeys",
    "Target",
    "TokenEndpoint",
    "Tokens",
    "create_key",
    "delete_key",
    "get_key",
    "list_keys",
    "load_or_make_tokens",
    "open_account",
    "own_certificate",
    "read_public_keys",
    "register_key",
    "roles_for",
    "rotate_signing_key",
    "sign_in",
    "update_key",
]
