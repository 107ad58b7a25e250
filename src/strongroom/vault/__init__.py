"""Keys and envelopes: what is sealed, under which key, bound to where it stands."""

from strongroom.vault.envelopes import Layer, LayerCipher, ScopeCipher
from strongroom.vault.keyring import Keyring, ensure_keys, place_keys

__all__ = ["Keyring", "Layer", "LayerCipher", "ScopeCipher", "ensure_keys", "place_keys"]
