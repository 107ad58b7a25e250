"""Keys and envelopes: what is sealed, under which key, bound to where it stands."""

from strongroom.vault.envelopes import Layer, LayerCipher, ScopeCipher
from strongroom.vault.keyring import Keyring, ensure_keys, place_keys
from strongroom.vault.keys import DESTROY_DELAY, RETIRED_KEPT, KeyDesk, Tested, get_scope_key, list_keys
from strongroom.vault.records import DataKey, Keys, KeyState, Scope, ScopeKey, Source
from strongroom.vault.work import Progress, Split, Work, carry_over, find_work, list_work, run_work

__all__ = [
    "DESTROY_DELAY",
    "RETIRED_KEPT",
    "DataKey",
    "KeyDesk",
    "KeyState",
    "Keyring",
    "Keys",
    "Layer",
    "LayerCipher",
    "Progress",
    "Scope",
    "ScopeCipher",
    "ScopeKey",
    "Source",
    "Split",
    "Tested",
    "Work",
    "carry_over",
    "ensure_keys",
    "find_work",
    "get_scope_key",
    "list_keys",
    "list_work",
    "place_keys",
    "run_work",
]
