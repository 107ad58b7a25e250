"""Opens an envelope with its data keys and nothing of strongroom: the format of envelope.md, read independently.

Reads one JSON object from standard input and writes the content to standard output:

    scope, row, envelope     in hexadecimal
    table, column            names
    keys                     {"platform": "64 hexadecimal digits", "customer": …}; "customer" for sensitive columns only
    person                   for what is one person's alone: their secret, 64 hexadecimal digits

Exit status 1, with the reason on standard error, when it doesn't open. Needs Python 3.11 and `cryptography`.
"""

import json
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CODES = {"platform": b"P", "customer": b"C"}


def read(envelope: bytes, key: bytes, layer: str, scope: bytes, place: bytes, row: bytes, person: bytes) -> bytes:
    """The content of one layer's envelope. `place` is table and column, each with a zero byte after it."""
    if envelope[:1] == b"\x01":
        header, rest = envelope[:5], envelope[5:]
        bound = b"strongroom envelope\0" + scope + place + row + header
        return AESGCM(key).decrypt(rest[:12], rest[12:], bound)
    if envelope[:2] == b"\x02" + CODES[layer]:
        names, info, secret = 6, b"strongroom envelope 2\0", key
    elif envelope[:2] == b"\x03" + CODES["customer"] and layer == "customer":
        names, info, secret = 14, b"strongroom person 1\0", key + person
    else:
        raise ValueError(f"this is no envelope of the {layer} layer")
    header, rest = envelope[: names + 16], envelope[names + 16 :]
    info += scope + CODES[layer] + header[2:names]
    derived = HKDF(SHA256(), 48, salt=None, info=info).derive(secret)
    if derived[32:] != header[names:]:
        raise ValueError(f"the {layer} key, or the person's, is not the one that this envelope commits to")
    bound = b"strongroom envelope 2\0" + scope + CODES[layer] + place + row + header
    return AESGCM(derived[:32]).decrypt(rest[:12], rest[12:], bound)


def main() -> None:
    """From standard input to standard output."""
    asked = json.load(sys.stdin)
    scope, row = bytes.fromhex(asked["scope"]), bytes.fromhex(asked["row"])
    place = f"{asked['table']}\0{asked['column']}\0".encode()
    content, person = bytes.fromhex(asked["envelope"]), bytes.fromhex(asked.get("person", ""))
    is_first = content[:1] == b"\x01"
    for layer, key in sorted(asked["keys"].items(), reverse=True):
        content = read(content, bytes.fromhex(key), layer, scope, place, row, person)
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
