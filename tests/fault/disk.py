"""A node's disk: ext4 in a file, so that it can be full, stall, and lose what was not synced."""

from __future__ import annotations

import os
from pathlib import Path

from tests.fault.sandbox import command

_OPTIONS = "loop,commit=600,discard,noatime"
"""The journal is not committed by itself during a test: only what was synced survives a power cut."""


class Disk:
    """One file system at ``mount_point``, held by a sparse file in ``images``."""

    def __init__(self, mount_point: Path, images: Path, size_bytes: int) -> None:
        self.mount_point = mount_point
        self._images = images
        self._size_bytes = size_bytes
        self._generation = 0
        self._frozen = False

    @property
    def _image(self) -> Path:
        return self._images / f"{self.mount_point.parent.name}.{self._generation}"

    def make(self) -> None:
        """Make it, empty, and mount it."""
        self.mount_point.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(self._size_bytes)
        options = "lazy_itable_init=1,lazy_journal_init=1"
        command("mkfs.ext4", "-q", "-m", "0", "-E", options, "-J", "size=16", str(self._image))
        self._mount()

    def _mount(self) -> None:
        command("mount", "-o", _OPTIONS, str(self._image), str(self.mount_point))

    def fill(self) -> None:
        """Leave no space."""
        with (self.mount_point / "ballast").open("wb") as file:
            state = os.fstatvfs(file.fileno())
            step = state.f_bavail * state.f_frsize
            while step >= 4096:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), step)
                except OSError:
                    step //= 2

    def free(self) -> None:
        """Give back what ``fill`` took."""
        (self.mount_point / "ballast").unlink(missing_ok=True)

    def freeze(self) -> None:
        """Let every write and sync wait."""
        command("fsfreeze", "-f", str(self.mount_point))
        self._frozen = True

    def thaw(self) -> None:
        """Let them go on; does nothing where nothing is frozen."""
        if self._frozen:
            command("fsfreeze", "-u", str(self.mount_point))
            self._frozen = False

    def copy_as_after_power_cut(self) -> None:
        """Take the disk as it is beneath the page cache. The node must be stopped (SIGSTOP), and is killed next."""
        after = self._images / f"{self.mount_point.parent.name}.{self._generation + 1}"
        command("cp", "--sparse=always", str(self._image), str(after))

    def become_copy(self) -> None:
        """Put the copy in the place of the disk, whose processes are gone."""
        command("umount", str(self.mount_point))
        self._image.unlink()
        self._generation += 1
        self._mount()

    def drop(self) -> None:
        """It is gone for good, and takes no memory any more. Its processes have ended."""
        command("umount", str(self.mount_point))
        self._image.unlink()
