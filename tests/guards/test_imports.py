"""What import-linter has no contract for: privacy between packages, and imports nobody declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.guards.tree import ROOT, SOURCE, python_files, shown, syntax

PRODUCT = "strongroom"
OURS = {PRODUCT, "tests", "bench", "None"}  # a relative import has no module


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every dotted name a file imports (`from a import b` gives `a.b`), or looks up with `find_spec`, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="find_spec"), args=[ast.Constant(value=str() as name)]):
                yield node.lineno, name
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_trespass(importer: str, imported: str) -> bool:
    """Whether `imported` is private to a package that `importer` is not in."""
    parts = imported.split(".")
    if parts[0] != PRODUCT:
        return False
    home = next((parts[:at] for at, part in enumerate(parts) if re.match(r"_(?!_)", part)), None)
    return home is not None and importer.split(".")[: len(home)] != home and importer.split(".")[:-1] != home[:-1]


def distributions(paths: Iterable[Path]) -> set[str]:
    """The packages of others that these files import, as their distributions are called."""
    providers = metadata.packages_distributions()
    tops = {name.split(".")[0] for path in paths for _, name in imports(syntax(path))}
    return {
        canonicalize_name(provider)
        for top in tops - OURS - sys.stdlib_module_names
        for provider in providers.get(top, [f"{top} (not installed)"])
    }


def declared(*groups: str) -> set[str]:
    """What pyproject.toml asks for at runtime, and in these groups."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    entries = [*project["project"]["dependencies"], *(e for g in groups for e in project["dependency-groups"][g])]
    return {canonicalize_name(Requirement(entry).name) for entry in entries}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def test_nobody_imports_what_is_private_to_another_package() -> None:
    found = [
        f"{shown(path)}:{line}: {name}"
        for path in python_files(SOURCE)
        for line, name in imports(syntax(path))
        if is_trespass(_module(path), name)
    ]
    assert not found, "use the package's public face instead:\n" + "\n".join(found)


def test_the_product_imports_what_it_declares_and_nothing_else() -> None:
    assert distributions(python_files(SOURCE)) == declared()


def test_tests_and_bench_import_only_what_is_declared() -> None:
    paths = [*python_files(ROOT / "tests"), *python_files(ROOT / "bench")]
    assert distributions(paths) - declared("build", "test", "schemas", "check") == set()


def test_an_import_inside_a_function_counts(tmp_path: Path) -> None:
    module = tmp_path / "late.py"
    module.write_text("import json\ndef f():\n    import lxml.etree\n    import nowhere_to_be_found\n")
    assert distributions([module]) == {"lxml", "nowhere-to-be-found (not installed)"}


@pytest.mark.parametrize(
    ("importer", "imported", "trespass"),
    [
        ("strongroom.payments.orders", "strongroom.outbound._private", True),
        ("strongroom.payments.orders", "strongroom.outbound._private.Pool", True),
        ("strongroom.payments.orders", "strongroom.outbound.client._helper", True),
        ("strongroom.outbound.client", "strongroom.outbound._private.Pool", False),
        ("strongroom.outbound.pools.warm", "strongroom.outbound._private", False),
        ("strongroom.outbound.client", "strongroom.outbound.failures._helper", False),
        ("strongroom.payments.orders", "strongroom.outbound.__version__", False),
        ("strongroom.payments.orders", "httpcore._backends", False),
    ],
)
def test_the_guard_knows_what_is_private(importer: str, imported: str, trespass: bool) -> None:
    assert is_trespass(importer, imported) is trespass
