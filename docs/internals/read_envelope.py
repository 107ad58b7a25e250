"""Opens an envelope with its data keys and nothing of strongroom: the format of envelope.md, read independently.

Reads one JSON object from standard input and writes the content to standard output:

    scope, row, envelope     in hexadecimal
    table, column            names
    keys                     {"platform": "64 hexadecimal digits", "customer": …}; "customer" for sensitive columns only

Exit status 1, with the reason on standard error, when it doesn't open. Needs Python 3.11 and `cryptography`.
"""

import json
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CODES = {"platform": b"P", "customer": b"C"}


def read(envelope: bytes, key: bytes, layer: str, scope: bytes, place: bytes, row: bytes) -> bytes:
    """The content of one layer's envelope. `place` is table and column, each with a zero byte after it."""
    if envelope[:1] == b"\x01":
        header, rest = envelope[:5], envelope[5:]
        bound = b"strongroom envelope\0" + scope + place + row + header
        return AESGCM(key).decrypt(rest[:12], rest[12:], bound)
    header, rest = envelope[:22], envelope[22:]
    if header[:2] != b"\x02" + CODES[layer]:
        raise ValueError(f"this is no envelope of the {layer} layer in format 2")
    info = b"strongroom envelope 2\0" + scope + CODES[layer] + header[2:6]
    derived = HKDF(SHA256(), 48, salt=None, info=info).derive(key)
    if derived[32:] != header[6:]:
        raise ValueError(f"the {layer} key is not the one that this envelope commits to")
    bound = b"strongroom envelope 2\0" + scope + CODES[layer] + place + row + header
    return AESGCM(derived[:32]).decrypt(rest[:12], rest[12:], bound)


def main() -> None:
    """From standard input to standard output."""
    asked = json.load(sys.stdin)
    scope, row = bytes.fromhex(asked["scope"]), bytes.fromhex(asked["row"])
    place = f"{asked['table']}\0{asked['column']}\0".encode()
    content = bytes.fromhex(asked["envelope"])
    is_first = content[:1] == b"\x01"
    for layer, key in sorted(asked["keys"].items(), reverse=True):
        content = read(content, bytes.fromhex(key), layer, scope, place, row)
        if is_first:
            break
    sys.stdout.buffer.write(content)


if __name__ == "__main__":
    try:
        main()
    except InvalidTag:
        sys.exit("it doesn't open: altered, of another place, or sealed by another key")
    except (ValueError, KeyError) as error:
        sys.exit(f"it can't be read: {error}")
