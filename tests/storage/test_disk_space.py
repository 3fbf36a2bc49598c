"""A full disk is told of without a write that fails, and so is its space."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from dsdbd.storage.wal import LogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_without_space_is_told_of_before_anything_is_written(disk: Path) -> None:
    log = LogWriter(disk, 0, 1 << 20)
    ballast = disk / "ballast"
    for size_bytes in (0, 19 << 20):
        ballast.write_bytes(bytes(size_bytes))
        log.look_for_space()
        assert log.problems() == [], "there is some"
    with ballast.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            assert file.write(bytes(4096))
    log.look_for_space()
    (told,) = log.problems()
    assert "no space is left" in told and str(disk) in told
    log.look_for_space()
    assert log.problems() == [told]
    ballast.unlink()
    log.look_for_space()
    assert log.problems() == []
    log.close()
