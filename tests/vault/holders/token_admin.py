"""What the owner of a token does at it, in a process of its own: `token_admin.py MODULE TOKEN PIN ACT LABEL`.

A process of its own because the library of a token keeps what it has once found for as long as it is loaded.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism

SECRET = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: True,
    Attribute.ENCRYPT: True,
    Attribute.DECRYPT: True,
}


def main(module: str, token: str, pin: str, act: str, label: str) -> None:
    session = pkcs11.lib(module).get_token(token_label=token).open(rw=True, user_pin=pin)
    if act.startswith("make"):
        bits = 128 if act == "make-short" else 256
        template = SECRET | ({Attribute.EXTRACTABLE: True} if act == "make-extractable" else {})
        session.generate_key(KeyType.AES, bits, label=label, store=True, template=template)
        return
    key: Any
    (key,) = session.get_objects({Attribute.LABEL: label})
    match act:
        case "destroy":
            key.destroy()
        case "forbid" | "allow":
            key[Attribute.DECRYPT] = act == "allow"
        case "steal":
            sys.stdout.write(steal(key, session))
        case _:
            raise SystemExit(f"no act {act}")


def steal(key: Any, session: Any) -> str:
    """Try every way to the key's value that the token has. The names of the refusals, or STOLEN."""
    refusals = []
    try:
        return f"STOLEN {key[Attribute.VALUE]!r}"
    except pkcs11.PKCS11Error as error:
        refusals.append(type(error).__name__)
    thief = session.generate_key(
        KeyType.AES, 256, store=False, template={Attribute.WRAP: True, Attribute.ENCRYPT: True}
    )
    for mechanism in (Mechanism.AES_KEY_WRAP, Mechanism.AES_KEY_WRAP_PAD):
        try:
            return f"STOLEN {thief.wrap_key(key, mechanism=mechanism)!r}"
        except pkcs11.PKCS11Error as error:
            refusals.append(type(error).__name__)
    for attribute in (Attribute.EXTRACTABLE, Attribute.SENSITIVE):
        try:
            key[attribute] = attribute is Attribute.EXTRACTABLE
        except pkcs11.PKCS11Error as error:
            refusals.append(type(error).__name__)
        else:
            return f"STOLEN {attribute}"
    # The key works all the same.
    params = GCMParams(os.urandom(12), b"", 128)
    key.encrypt(b"x", mechanism=Mechanism.AES_GCM, mechanism_param=params)
    return " ".join(refusals)


if __name__ == "__main__":
    main(*sys.argv[1:])
