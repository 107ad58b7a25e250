"""Keys and envelopes: what is sealed, under which key, bound to where it stands."""

from strongroom.vault.envelopes import Layer, LayerCipher, ScopeCipher
from strongroom.vault.importing import ImportDesk
from strongroom.vault.keyring import Keyring, ensure_keys, place_keys
from strongroom.vault.keys import DESTROY_DELAY, RETIRED_KEPT, KeyDesk, Tested, get_scope_key, list_keys
from strongroom.vault.overview import count_sealed, get_rotation, list_rotations
from strongroom.vault.persons import destroy_ended, end_person, keep_persons, new_persons, part_persons
from strongroom.vault.records import DataKey, Keys, KeyState, Scope, ScopeKey, Source, is_over
from strongroom.vault.renewal import Renewed, renew_scope_keys
from strongroom.vault.root_rotation import count_under_root, end_root_version, rewrap_under_root
from strongroom.vault.verifying import Finding, Verified, verify_scope
from strongroom.vault.work import Progress, Split, Work, carry_over, find_work, list_work, run_work

__all__ = [
    "DESTROY_DELAY",
    "RETIRED_KEPT",
    "DataKey",
    "Finding",
    "ImportDesk",
    "KeyDesk",
    "KeyState",
    "Keyring",
    "Keys",
    "Layer",
    "LayerCipher",
    "Progress",
    "Renewed",
    "Scope",
    "ScopeCipher",
    "ScopeKey",
    "Source",
    "Split",
    "Tested",
    "Verified",
    "Work",
    "carry_over",
    "count_sealed",
    "count_under_root",
    "destroy_ended",
    "end_person",
    "end_root_version",
    "ensure_keys",
    "find_work",
    "get_rotation",
    "get_scope_key",
    "is_over",
    "keep_persons",
    "list_keys",
    "list_rotations",
    "list_work",
    "new_persons",
    "part_persons",
    "place_keys",
    "renew_scope_keys",
    "rewrap_under_root",
    "run_work",
    "verify_scope",
]
