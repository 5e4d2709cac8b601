"""An ext4 of its own, in a file on a loop device, whose power can be cut: EXT4_IOC_SHUTDOWN without flushing the log.

The kernel then answers everything with EIO and writes nothing any more; what is mounted again is what was on the disk,
with the journal replayed. It needs root, loop devices and the right to mount.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Final

_EXT4_IOC_SHUTDOWN: Final = 0x8004587D  # _IOR('X', 125, __u32), include/uapi/linux/ext4.h
_NO_LOG_FLUSH: Final = 2
_CLOSED_S: Final = 20
_SIZE_BYTES: Final = 256 * 1024 * 1024
TOOLS: Final = ("mkfs.ext4", "mount", "umount")


class PowerCutDisk:
    """`mount`, `cut`, `unmount`, `mount` ... `remove` at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "disk"
        self._image = directory / "image"

    def make(self) -> None:
        """Raises OSError or CalledProcessError where this machine does not permit it."""
        with self._image.open("wb") as image:
            image.truncate(_SIZE_BYTES)
        self.directory.mkdir()
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.directory))

    def cut(self) -> None:
        """The power goes: what was not synced may be lost."""
        root = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(root, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(root)

    def unmount(self) -> None:
        """Nobody may have a file of it open. The kernel closes those of a killed process's io_uring behind its end."""
        deadline = time.monotonic() + _CLOSED_S
        while True:
            try:
                return _run("umount", str(self.directory))
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def remove(self) -> None:
        if os.path.ismount(self.directory):
            self.unmount()
        self._image.unlink(missing_ok=True)


def why_not(directory: Path) -> str:
    """Why there can be no such disk here; empty where there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        return "a power cut needs root: it mounts an ext4 of its own"
    if missing:
        return f"a power cut needs {', '.join(missing)}"
    disk = PowerCutDisk(directory)
    try:
        disk.make()
        disk.cut()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"this machine does not permit loop devices, mounting or the shutdown of a file system: {error}"
    finally:
        disk.remove()
    return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
