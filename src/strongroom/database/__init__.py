"""Storage: the embedded server, databases by region, migrations, and the Operation, the only way to a connection."""

from strongroom.database.catalogue import CATALOGUE, Column, DataClass, Purpose
from strongroom.database.coalescing import Coalescer
from strongroom.database.databases import Databases, DirectoryEntry
from strongroom.database.embedded import EmbeddedServer
from strongroom.database.ip_lists import IpList
from strongroom.database.operation import KeysChanged, Operation, in_operation
from strongroom.database.packed import Packed, pack_bytes, pack_codes, pack_dates, pack_instants, pack_texts, pack_uuids

__all__ = [
    "CATALOGUE",
    "Coalescer",
    "Column",
    "DataClass",
    "Databases",
    "DirectoryEntry",
    "EmbeddedServer",
    "IpList",
    "KeysChanged",
    "Operation",
    "Packed",
    "Purpose",
    "in_operation",
    "pack_bytes",
    "pack_codes",
    "pack_dates",
    "pack_instants",
    "pack_texts",
    "pack_uuids",
]
