"""Keys and envelopes: what is sealed, under which key, bound to where it stands."""

from strongroom.vault.envelopes import ScopeCipher
from strongroom.vault.keyring import Keyring, create_keys, ensure_keys
from strongroom.vault.master import MasterKey, load_or_make_master_key

__all__ = ["Keyring", "MasterKey", "ScopeCipher", "create_keys", "ensure_keys", "load_or_make_master_key"]
