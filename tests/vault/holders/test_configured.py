"""holders.toml: who may use which holder, and what is said of each mistake."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from strongroom.kernel.errors import NotFound
from strongroom.kernel.ids import AccountId
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import FileHolder, Holders, open_holders
from strongroom.vault.holders.aws_kms import AwsKmsHolder
from strongroom.vault.holders.configured import _KINDS
from strongroom.vault.holders.pkcs11 import Pkcs11Holder
from strongroom.vault.holders.transit import TransitHolder
from tests.certificates import Authority
from tests.vault.holders.conftest import MODULE, TOKEN, Hsm

ACME = AccountId(UUID("0197a7a0-0000-7000-8000-000000000001"))
OTHERS = AccountId(UUID("0197a7a0-0000-7000-8000-000000000002"))
GOOD = f"""
[hsm]
kind = "pkcs11"
module = "{MODULE}"
token = "{TOKEN}"
pin_file = "hsm.pin"
accounts = ["{ACME}"]

[aws]
kind = "aws_kms"
region = "eu-central-1"
timeout_s = 1
accounts = ["{ACME}", "{OTHERS}"]

[bao]
kind = "transit"
url = "https://bao.example:8200"
token_file = "bao.token"
accounts = ["{OTHERS}"]
"""


@pytest.fixture
def own(folder: Path, file_holder: FileHolder) -> FileHolder:
    for name in ("hsm.pin", "bao.token"):
        (folder / name).touch(0o600)
        (folder / name).write_text("secret")
    return file_holder


def write(folder: Path, text: str) -> None:
    path = folder / "holders.toml"
    path.touch(0o600)
    path.write_text(text)


@pytest.fixture
async def holders(own: FileHolder, folder: Path) -> AsyncIterator[Holders]:
    write(folder, GOOD)
    found, mistakes = open_holders(own, folder)
    assert mistakes == []
    yield found
    await found.close()


async def test_each_kind_is_built(holders: Holders) -> None:
    assert isinstance(holders.get("file", ACME), FileHolder)
    assert isinstance(holders.get("hsm", ACME), Pkcs11Holder)
    assert isinstance(holders.get("aws", ACME), AwsKmsHolder)
    assert isinstance(holders.get("bao", OTHERS), TransitHolder)
    assert [holders.get(name, OTHERS).name for name in ("aws", "bao")] == ["aws", "bao"]


async def test_a_holder_of_others_is_like_one_that_is_not_there(holders: Holders) -> None:
    for name in ("bao", "none", "", "FILE"):
        with pytest.raises(NotFound) as refused:
            holders.get(name, ACME)
        assert refused.value.code == "HOLDER_NOT_FOUND"
    assert holders.names(ACME) == ["file", "aws", "hsm"]
    assert holders.names(OTHERS) == ["file", "aws", "bao"]


async def test_without_a_file_there_is_our_own_alone(own: FileHolder, folder: Path) -> None:
    holders, mistakes = open_holders(own, folder)
    assert mistakes == []
    assert holders.names(ACME) == ["file"]
    assert holders.own is own


async def test_a_token_from_the_file_works(hsm: Hsm, own: FileHolder, folder: Path) -> None:
    hsm.admin("make", "one")
    (folder / "hsm.pin").write_text(hsm.pin_file.read_text())
    write(folder, GOOD.replace('"hsm.pin"', '"hsm.pin"\ntimeout_s = 10.0'))
    holders, mistakes = open_holders(own, folder)
    assert mistakes == []
    wrapped = await holders.get("hsm", ACME).wrap("one", Secret(bytes(32)), b"")
    assert (await holders.get("hsm", ACME).unwrap("one", wrapped, b"")).reveal() == bytes(32)
    await holders.close()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('kind = "pkcs11"', 'kind = "azure"', "[hsm]: `kind` must be one of aws_kms, pkcs11, transit"),
        ('kind = "pkcs11"', "", "[hsm]: `kind` must be one of"),
        (f'token = "{TOKEN}"', "", "missing required field `token`"),
        ('region = "eu-central-1"', "", "missing required field `region`"),
        ('region = "eu-central-1"', 'region = "eu-central-1"\nregoin = 1', "unknown field `regoin`"),
        ('region = "eu-central-1"', "region = 7", "Expected `str`, got `int` - at `$.region`"),
        ("timeout_s = 1", "timeout_s = 60", "`timeout_s` must be from 0.1 to 10.0"),
        ("timeout_s = 1", "timeout_s = nan", "`timeout_s` must be from 0.1 to 10.0"),
        ("timeout_s = 1", 'endpoint = "http://kms.example"', "`endpoint` must begin with https://"),
        ("timeout_s = 1", 'ca_file = "none.pem"', "`ca_file`: there is no file"),
        (f'accounts = ["{ACME}"]', "accounts = []", "`accounts` is empty"),
        (f'accounts = ["{ACME}"]', "", "missing required field `accounts`"),
        (f'accounts = ["{ACME}"]', 'accounts = ["acme"]', "Invalid UUID"),
        (str(MODULE), "/nonexistent.so", "`module`: there is no file /nonexistent.so"),
        ('"hsm.pin"', '"none.pin"', "`pin_file`:"),
        ("https://bao.example:8200", "http://bao.example:8200", "`url` must be like https://host"),
        ("https://bao.example:8200", "https://bao.example/v1", "`url` must be like https://host"),
        ("[hsm]", "[file]", "isn't `file`"),
        ("[hsm]", "[HSM]", "a name is 1 to 32"),
        ("[hsm]", "hsm = 1\n[h]", "`hsm` stands outside a section"),
        ("[hsm]", "[hsm", "it is not TOML"),
    ],
)
def test_each_mistake_is_named(own: FileHolder, folder: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    write(folder, GOOD.replace(old, new, 1))
    holders, [mistake] = open_holders(own, folder)
    assert mistake.code == "HOLDERS_FILE_INVALID"
    assert says in mistake.message
    # Whoever uses another holder goes on, unless nobody can say where one section ends and the next begins.
    left = {*holders.names(ACME), *holders.names(OTHERS)} & {"file", "hsm", "aws", "bao"}
    assert left == ({"file"} if "TOML" in says else {"file", "hsm", "aws", "bao"} - {broken_by(old)})


def broken_by(old: str) -> str:
    """The section of the good file in which something stands first."""
    return str(re.findall(r"^\[(\w+)\]", GOOD[: GOOD.index(old) + len(old)], re.MULTILINE)[-1])


def test_all_mistakes_are_named_together(own: FileHolder, folder: Path) -> None:
    write(
        folder, GOOD.replace("timeout_s = 1", "timeout_s = 0").replace('"pkcs11"', '"x"').replace("https://", "ftp://")
    )
    holders, mistakes = open_holders(own, folder)
    assert len(mistakes) == 3
    assert holders.names(ACME) == holders.names(OTHERS) == ["file"]


def test_one_token_is_not_two_holders(own: FileHolder, folder: Path) -> None:
    """Else two accounts could use one another's keys in it, each by its own holder."""
    section = GOOD.partition("[aws]")[0]
    write(folder, section + section.replace("[hsm]", "[again]").replace(str(ACME), str(OTHERS)))
    holders, [mistake] = open_holders(own, folder)
    assert "[again]: it is the same token as [hsm]" in mistake.message
    assert (holders.names(ACME), holders.names(OTHERS)) == (["file", "hsm"], ["file"])


@pytest.mark.parametrize("name", ["holders.toml", "hsm.pin", "bao.token"])
def test_files_that_others_may_read_are_refused(own: FileHolder, folder: Path, name: str) -> None:
    write(folder, GOOD)
    (folder / name).chmod(0o640)
    holders, [mistake] = open_holders(own, folder)
    assert f"chmod 600 {folder / name}" in mistake.message
    assert name.partition(".")[0] not in holders.names(ACME)
    assert ("aws" in holders.names(ACME)) == (name != "holders.toml")


def test_more_holders_than_anybody_needs_are_refused(own: FileHolder, folder: Path) -> None:
    write(folder, "".join(f"[h{number}]\n" for number in range(51)))
    holders, [mistake] = open_holders(own, folder)
    assert "more than 50" in mistake.message
    assert holders.names(ACME) == ["file"]


def test_the_examples_of_the_manual_are_good(own: FileHolder, folder: Path) -> None:
    manual = (Path(__file__).parents[3] / "docs" / "keys.md").read_text("utf-8")
    examples = re.findall(r"<!-- holders -->\n```toml\n(.*?)```", manual, re.DOTALL)
    for name in ("acme-hsm.pin", "acme-bao.token", "acme-ca.pem"):
        (folder / name).touch(0o600)
    (folder / "acme-ca.pem").write_bytes(Authority(folder).ca.read_bytes())
    write(folder, "".join(examples))
    holders, mistakes = open_holders(own, folder)
    assert mistakes == []
    assert holders.names(ACME) == ["file", "acme-aws", "acme-bao", "acme-hsm"]


def test_the_manual_lists_every_setting() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "keys.md").read_text("utf-8")
    for kind, settings in _KINDS.items():
        common = manual.partition("Common to all:")[2].partition("\n###")[0]
        own = re.split(r"\n###? ", manual.partition(f"### `{kind}`")[2])[0]
        assert set(re.findall(r"^\| `(\w+)` \|", common + own, re.MULTILINE)) == set(settings.__struct_fields__)
