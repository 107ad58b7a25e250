"""The format as it is written down: the vectors, the document, and a reader that knows nothing of strongroom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from strongroom.kernel.errors import Broken
from strongroom.kernel.secret import Secret
from strongroom.vault import Layer, LayerCipher, ScopeCipher
from strongroom.vault.envelopes import version_of
from tests.guards.tree import ROOT
from tests.vault.test_envelopes import PERSON, Held, Known

FOLDER = ROOT / "docs" / "internals"
READER = FOLDER / "read_envelope.py"
VECTORS: list[dict[str, Any]] = json.loads((FOLDER / "envelope-vectors.json").read_text())
by_vector = pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])


def read(**asked: Any) -> subprocess.CompletedProcess[bytes]:
    """The reader, alone: without the environment in which strongroom can be found."""
    return subprocess.run(
        [sys.executable, "-I", str(READER)],
        input=json.dumps(asked).encode(),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        timeout=60,
        check=False,
    )


def cipher_of(vector: dict[str, Any]) -> ScopeCipher:
    scope, envelope = UUID(hex=vector["scope"]), bytes.fromhex(vector["envelope"])
    keys = {name: Secret(bytes.fromhex(key)) for name, key in vector["keys"].items()}
    inner = LayerCipher(scope, Layer.CUSTOMER, {2: keys["customer"]}) if "customer" in keys else None
    platform = LayerCipher(scope, Layer.PLATFORM, {version_of(envelope): keys["platform"]})
    persons = Known({PERSON: Secret(bytes.fromhex(vector["person"]))} if "person" in vector else {})
    whole = ScopeCipher(scope, platform, Secret(b"i" * 32), inner and Held(inner), persons=persons)
    return whole.for_purpose("legal-obligation")


@by_vector
def test_strongroom_opens_the_vectors(vector: dict[str, Any]) -> None:
    place = (vector["table"], vector["column"], bytes.fromhex(vector["row"]))
    opened = cipher_of(vector).open(*place, bytes.fromhex(vector["envelope"]))
    assert opened.hex() == vector["content"]
    with pytest.raises(Broken):
        cipher_of(vector).open(*place[:2], bytes(16), bytes.fromhex(vector["envelope"]))


@by_vector
def test_the_reader_opens_the_vectors(vector: dict[str, Any]) -> None:
    answer = read(**vector)
    assert (answer.returncode, answer.stdout.hex()) == (0, vector["content"]), answer.stderr


@by_vector
def test_the_document_has_the_vectors(vector: dict[str, Any]) -> None:
    text = "".join((FOLDER / "envelope.md").read_text().split())
    assert vector["envelope"] in text


@pytest.mark.parametrize("column", ["sealed", "sensitive"])
def test_the_reader_opens_what_strongroom_seals(column: str) -> None:
    scope, row = UUID(bytes=os.urandom(16)), os.urandom(32)
    keys = {"platform": os.urandom(32), "customer": os.urandom(32)}
    inner = Held(LayerCipher(scope, Layer.CUSTOMER, {1: Secret(keys["customer"])}))
    platform = LayerCipher(scope, Layer.PLATFORM, {4: Secret(keys["platform"])})
    person = os.urandom(32)
    whole = ScopeCipher(scope, platform, Secret(b"i" * 32), inner, persons=Known({PERSON: Secret(person)}))
    envelope = whole.for_person(PERSON).seal("customers", column, row, b"Ada Example")
    used = keys if column == "sensitive" else {"platform": keys["platform"]}
    asked = {
        "scope": scope.hex,
        "table": "customers",
        "column": column,
        "row": row.hex(),
        "envelope": envelope.hex(),
        "keys": {name: key.hex() for name, key in used.items()},
        "person": person.hex(),
    }
    assert read(**asked).stdout == b"Ada Example"
    others = [{"column": "other"}, {"row": bytes(32).hex()}, {"keys": {"platform": bytes(32).hex()}}]
    if column == "sensitive":
        others.append({"person": bytes(32).hex()})
    for wrong in others:
        refused = read(**{**asked, **wrong})
        assert refused.returncode == 1
        assert refused.stdout == b""
        assert b"it " in refused.stderr


def test_the_reader_is_short_and_needs_only_cryptography() -> None:
    text = READER.read_text()
    assert len(text.splitlines()) < 100
    modules = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert modules == {"json", "sys", "cryptography"}
