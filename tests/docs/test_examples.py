"""What the documentation says works: its examples run, its links lead somewhere, its lists are complete."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.cli.client import Key
from strongroom.cli.payment_file import OPTIONAL, REQUIRED
from strongroom.cli.tenant_setup import make_tenant, write_setup
from strongroom.kernel.secret import Secret
from tests.fixtures.platform import Server

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
RUNNABLE = re.compile(r"<!-- run -->\n```python\n(.*?)```", re.DOTALL)
PRINTS = re.compile(r"^print\(.*\)  # (\w+)", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)[^)]*\)")
EXAMPLES = [(page, code) for page in PAGES for code in RUNNABLE.findall(page.read_text(encoding="utf-8"))]


def name_of(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else ""


def test_there_are_examples() -> None:
    assert ROOT / "README.md" in {page for page, _ in EXAMPLES}


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=name_of)
def test_examples_run_and_print_what_they_say(page: Path, code: str, server: Server, tmp_path: Path) -> None:
    opened = json.loads(server.run("accounts", "create", "--name", "Reader", "--json").stdout)
    account = Key(
        account_id=opened["accountId"], public_key=opened["publicKey"], private_key=Secret(opened["privateKey"])
    )
    key_file = tmp_path / "rehearsal.json"
    write_setup(key_file, asyncio.run(make_tenant(server.url, account, trust=server.ca_file)))
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "API": server.url, "CA": str(server.ca_file), "KEY": str(key_file)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"
    assert done.stdout.split() == PRINTS.findall(code) != []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_column_of_a_payments_file_is_described() -> None:
    page = (ROOT / "docs" / "run.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `(\w+)` \| (\w*)", page, re.MULTILINE)
    assert {name for name, need in described if need == "required"} == set(REQUIRED)
    assert {name for name, need in described if need != "required"} == set(OPTIONAL)


def test_every_page_can_be_found_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / link).resolve() for link in LINK.findall(index) if "://" not in link}
    lost = set(ROOT.glob("docs/**/*.md")) - linked - {ROOT / "docs" / "index.md"}
    assert not lost, f"docs/index.md should link {', '.join(map(name_of, lost))}"
