"""Secrets of the installation are made once, and only their owner reads them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from strongroom.kernel.errors import Broken
from strongroom.vault.secret_files import read_or_make_secret


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "some.secret"
    first = read_or_make_secret(path, 32)
    assert len(first) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_or_make_secret(path, 32) == first
    assert [entry.name for entry in path.parent.iterdir()] == ["some.secret"]


@pytest.mark.parametrize(
    ("mode", "content", "code"), [(0o640, b"k" * 32, "MASTER_KEY_UNSAFE"), (0o600, b"k" * 31, "MASTER_KEY_BROKEN")]
)
def test_one_that_others_may_read_or_that_is_cut_is_refused(
    tmp_path: Path, mode: int, content: bytes, code: str
) -> None:
    path = tmp_path / "some.secret"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(Broken) as refused:
        read_or_make_secret(path, 32)
    assert refused.value.code == code
