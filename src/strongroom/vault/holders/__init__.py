"""Where root keys and customers' keys live: one contract, several holders."""

from strongroom.vault.holders.configured import Holders, open_holders
from strongroom.vault.holders.contract import HeldKey, HeldState, Holder, KeyStore, KeyUnavailable, Reason
from strongroom.vault.holders.file import ROOT, FileHolder, root_version
from strongroom.vault.holders.imports import Imports, KeyImport, WrappingAlgorithm
from strongroom.vault.holders.passphrase import find_passphrase
from strongroom.vault.holders.root import is_protected

__all__ = [
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
    "WrappingAlgorithm",
    "find_passphrase",
    "is_protected",
    "open_holders",
    "root_version",
]
