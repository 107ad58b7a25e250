"""Where root keys and customers' keys live: one contract, several holders."""

from strongroom.vault.holders.configured import Holders, open_holders
from strongroom.vault.holders.contract import HeldKey, HeldState, Holder, KeyStore, KeyUnavailable, Reason
from strongroom.vault.holders.file import ROOT, FileHolder, root_version
from strongroom.vault.holders.imports import Imports, KeyImport, WrappingAlgorithm
from strongroom.vault.holders.passphrase import CARD_VAULT, RootPlace, find_passphrase
from strongroom.vault.holders.root import is_protected

__all__ = [
    "CARD_VAULT",
    "ROOT",
    "FileHolder",
    "HeldKey",
    "HeldState",
    "Holder",
    "Holders",
    "Imports",
    "KeyImport",
    "KeyStore",
    "KeyUnavailable",
    "Reason",
    "RootPlace",
    "WrappingAlgorithm",
    "find_passphrase",
    "is_protected",
    "open_holders",
    "root_version",
]
