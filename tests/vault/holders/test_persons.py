"""Persons' secrets in their files: handed out once, gone for everybody when they are destroyed, and never in clear."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import FileHolder, KeyUnavailable, Reason
from strongroom.vault.holders.persons import BLOCK, RUN, RUNS, SLOT_BYTES, PersonSecrets

REGION = "eu"
DESTROYED = b"destroyed"


def holder_of(folder: Path) -> FileHolder:
    return FileHolder(folder, Environment.SANDBOX, SystemClock())


def another(folder: Path, region: str = REGION) -> PersonSecrets:
    """The same secrets, as another process has them."""
    return holder_of(folder).persons(region)


@pytest.fixture
def secrets(folder: Path) -> PersonSecrets:
    return another(folder)


def block_of(folder: Path, number: int = 0) -> Path:
    return folder / "persons" / REGION / f"{number:08d}.secrets"


def slot_of(content: bytes, person: int) -> bytes:
    start = RUNS + person % BLOCK * SLOT_BYTES
    return content[start : start + SLOT_BYTES]


def revealed(secrets: PersonSecrets, persons: Collection[int]) -> list[bytes]:
    found = [secrets.find(person) for person in persons]
    return [secret.reveal() for secret in found if secret is not None]


def test_a_run_is_handed_out_once_and_its_secrets_stay(folder: Path, secrets: PersonSecrets) -> None:
    taken = secrets.take([0, 2])
    assert taken == [*range(RUN), *range(2 * RUN, 3 * RUN)]
    assert secrets.take([0, 2]) == another(folder).take([0]) == []
    assert another(folder).take([0, 1]) == list(range(RUN, 2 * RUN))
    found = revealed(secrets, taken)
    assert len(set(found)) == len(taken)
    assert {len(secret) for secret in found} == {32}
    assert revealed(another(folder), taken) == found


def test_a_forked_process_does_not_hand_out_what_its_parent_does(secrets: PersonSecrets) -> None:
    secrets.spare.extend(secrets.take([0]))
    child = os.fork()
    if child == 0:
        os._exit(len(secrets.spare))
    assert os.waitpid(child, 0)[1] == 0
    assert len(secrets.spare) == RUN


def test_a_block_is_there_whole_before_its_first_secret_is_used(folder: Path, secrets: PersonSecrets) -> None:
    secrets.take([0])
    content = block_of(folder).read_bytes()
    assert len(content) == RUNS + BLOCK * SLOT_BYTES
    assert content[:RUNS] == b"\1" + bytes(RUNS - 1)
    secrets.take([1])
    assert block_of(folder).read_bytes()[RUNS:] == content[RUNS:], "the next run costs no secret to be written"
    assert secrets.take([RUNS]) == list(range(BLOCK, BLOCK + RUN))
    assert block_of(folder, 1).exists()


def test_nothing_is_on_disk_in_clear_or_for_others(folder: Path, secrets: PersonSecrets) -> None:
    persons = secrets.take([0])
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert not any(secret in content for secret in revealed(secrets, persons))
    for path in (folder / "persons", *(folder / "persons").rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    block_of(folder).chmod(0o640)
    with pytest.raises(Broken) as refused:
        secrets.find(0)
    assert refused.value.code == "KEY_FILE_UNSAFE"


def test_destroyed_is_overwritten_for_every_process_and_nobody_else_s(folder: Path, secrets: PersonSecrets) -> None:
    secrets.take([0])
    there = another(folder)
    assert there.find(5) is not None
    before = block_of(folder).read_bytes()
    secrets.destroy([5, 7])
    secrets.destroy([5])
    assert there.find(5) is there.find(7) is None
    after = block_of(folder).read_bytes()
    assert slot_of(after, 5) == DESTROYED.ljust(SLOT_BYTES, b"\0")
    assert slot_of(before, 5)[:28] not in after
    others = [person for person in range(BLOCK) if person not in {5, 7}]
    assert all(slot_of(after, person) == slot_of(before, person) for person in others)
    assert there.find(6) is not None


def test_a_secret_opens_in_its_own_place_only(folder: Path, secrets: PersonSecrets) -> None:
    secrets.take([0])
    path, content = block_of(folder), block_of(folder).read_bytes()
    swapped = content.replace(slot_of(content, 1), bytes(SLOT_BYTES)).replace(slot_of(content, 2), slot_of(content, 1))
    altered = bytearray(content)
    altered[RUNS + 2 * SLOT_BYTES + 20] ^= 1
    for wrong in (swapped, bytes(altered), content[: RUNS + 2 * SLOT_BYTES + 10]):
        path.write_bytes(wrong)
        with pytest.raises(Broken) as refused:
            secrets.find(2)
        assert refused.value.code == "KEY_FILE_BROKEN"
    path.write_bytes(content)
    other = another(folder, "ch")
    other.take([0])
    (folder / "persons" / "ch" / path.name).write_bytes(content)
    with pytest.raises(Broken):
        other.find(2)


def test_without_its_file_or_its_key_nothing_is_guessed(folder: Path, secrets: PersonSecrets) -> None:
    secrets.take([0])
    aside = block_of(folder).rename(folder / "aside")
    for attempt in (lambda: secrets.find(0), lambda: secrets.destroy([0])):
        with pytest.raises(KeyUnavailable) as refused:
            attempt()
        assert refused.value.reason is Reason.AWAY
        assert "00000000.secrets" in str(refused.value)
    aside.rename(block_of(folder))
    assert secrets.find(0) is not None


async def test_with_the_region_s_key_disabled_none_opens(folder: Path) -> None:
    holder = holder_of(folder)
    secrets = holder.persons(REGION)
    secrets.take([0])
    await holder.disable("persons-eu")
    with pytest.raises(KeyUnavailable) as refused:
        secrets.find(0)
    assert refused.value.reason is Reason.DISABLED
    secrets.destroy([0])
    await holder.enable("persons-eu")
    assert secrets.find(0) is None
    assert secrets.find(1) is not None


def test_what_the_disk_refuses_is_told_and_nothing_is_lost(folder: Path, secrets: PersonSecrets) -> None:
    secrets.take([0])
    path = block_of(folder)
    aside = path.rename(folder / "aside")
    path.mkdir()
    for attempt in (lambda: secrets.take([1]), lambda: secrets.destroy([0])):
        with pytest.raises(Unavailable) as refused:
            attempt()
        assert refused.value.code == "KEY_FILE_NOT_WRITTEN"
    path.rmdir()
    aside.rename(path)
    assert secrets.find(0) is not None
    assert secrets.take([1]) == list(range(RUN, 2 * RUN))


async def test_secrets_outlive_a_rotation_of_the_root_key(folder: Path) -> None:
    holder = holder_of(folder)
    persons = holder.persons(REGION).take([0])
    before = revealed(holder.persons(REGION), persons)
    await holder.rotate_root()
    assert await holder.rewrap_kept() == 1
    await holder.end_root_version(1)
    assert revealed(another(folder), persons) == before


PROGRAM = """
import sys
from pathlib import Path
from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Environment
from strongroom.vault.holders import FileHolder

folder, number, of = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
secrets = FileHolder(folder, Environment.SANDBOX, SystemClock()).persons("eu")
for run in range(number, 3 * of, of):
    persons = secrets.take([run])
    secrets.destroy([person for person in persons if person % 2])
    print(*persons)
"""


def test_processes_that_begin_at_once_make_one_block_and_stay_out_of_each_other_s_way(folder: Path) -> None:
    holder_of(folder)
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    children = [
        subprocess.Popen([*command, str(number), "4"], stdout=subprocess.PIPE, env={**os.environ}, text=True)
        for number in range(4)
    ]
    told = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4
    persons = sorted(int(word) for text in told for word in text.split())
    assert persons == list(range(12 * RUN))
    secrets = another(folder)
    found: dict[int, Secret[bytes] | None] = {person: secrets.find(person) for person in persons}
    assert all((secret is None) == bool(person % 2) for person, secret in found.items())
    assert [path.name for path in (folder / "persons" / REGION).iterdir() if path.name[0] != "."] == [
        block_of(folder).name
    ]
