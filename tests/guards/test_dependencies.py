"""Every dependency is written down with its reason, and may be given away with the product."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.guards.tree import ROOT

PAGE = ROOT / "docs" / "internals" / "dependencies.md"

# Licences under which the product can be passed on as Apache-2.0, by how packages write them.
ALLOWED = re.compile(
    r"(?:MIT|BSD|Apache|ISC|MPL|Mozilla Public|PSF|Python Software Foundation|LGPL|GNU Lesser General|GNU Library)\b.*"
)
ROW = re.compile(r"^\| `([^`]+)` \| [^|]{10,} \| [^|]+ \|$", re.MULTILINE)


def requirements() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for, by group."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = {"runtime": project["project"]["dependencies"]} | project["dependency-groups"]
    return {group: [Requirement(entry) for entry in entries] for group, entries in groups.items()}


def declared() -> dict[str, str]:
    """Every dependency of pyproject.toml → its group."""
    return {canonicalize_name(need.name): group for group, needs in requirements().items() for need in needs}


def written_down() -> dict[str, str]:
    """Every dependency on the page → its group, the first word of the heading it stands under."""
    sections = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {name: section.split(None, 1)[0].lower() for section in sections for name in ROW.findall(section)}


def runtime_closure() -> set[str]:
    """All that is installed with the product here: its dependencies, theirs, and so on."""
    closure: set[tuple[str, str]] = set()
    waiting = requirements()["runtime"]
    while waiting:
        need = waiting.pop()
        for extra in {"", *need.extras}:
            if (need.name, extra) not in closure:
                closure.add((need.name, extra))
                further = map(Requirement, metadata.requires(need.name) or ())
                waiting += [one for one in further if one.marker is None or one.marker.evaluate({"extra": extra})]
    return {canonicalize_name(name) for name, _ in closure}


def licences(about: metadata.PackageMetadata) -> list[str]:
    """What a package says its licence is; several when the user may choose."""
    for field in ("License-Expression", "License"):
        stated: str = (about.get_all(field) or [""])[0]
        if stated and "\n" not in stated and stated != "Dual License":  # some packages put the whole text here
            return stated.split(" OR ")
    classifiers = about.get_all("Classifier") or []
    return [entry.rsplit(" :: ", 1)[1] for entry in classifiers if entry.startswith("License ::")]


def licences_by_text(name: str) -> list[str]:
    """What a package's licence is by the text that it brings, where it states nothing."""
    texts = [path for path in metadata.files(name) or () if path.name in {"LICENSE", "LICENSE.txt"}]
    apache = re.compile(r"\s*Apache License\s+Version 2\.0,")
    return ["Apache-2.0" for path in texts if apache.match(path.read_text("utf-8"))]


def is_allowed(choices: list[str]) -> bool:
    """Whether one of the licences offered is on the list."""
    return any(ALLOWED.fullmatch(choice) for choice in choices)


def test_the_page_lists_what_is_declared_and_nothing_else() -> None:
    assert written_down() == declared()


def test_every_licence_is_on_the_list() -> None:
    refused = {
        name: found
        for name in sorted(declared().keys() | runtime_closure())
        if not is_allowed(found := licences(metadata.metadata(name)) or licences_by_text(name))
    }
    assert refused == {}


def test_the_closure_reaches_what_nobody_declared() -> None:
    assert {"psycopg-binary", "h11", "cffi"} <= runtime_closure()


@pytest.mark.parametrize("choices", [["GPL-3.0-only"], ["AGPL-3.0"], ["Proprietary"], ["GNU General Public"], []])
def test_other_licences_are_refused(choices: list[str]) -> None:
    assert not is_allowed(choices)
