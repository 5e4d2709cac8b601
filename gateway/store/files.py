"""Every system call the store makes, in one place, so that tests can record, fail and reorder them.

All methods block; those that may wait for the disk are called off the run loop (flusher.py). Errors are OSError.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from pathlib import Path
from typing import Final

_FALLOC_FL_KEEP_SIZE: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Files:
    """The operating system's files."""

    def make_directory(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))

    def create(self, path: Path) -> int:
        """A new file, open for reading and appending; FileExistsError where it exists."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def open(self, path: Path, *, append: bool = False) -> int:
        return os.open(path, (os.O_RDWR | os.O_APPEND if append else os.O_RDONLY) | os.O_CLOEXEC)

    def size(self, file: int) -> int:
        return os.fstat(file).st_size

    def write(self, file: int, data: bytes) -> None:
        """Write all of `data` at the end of the file."""
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]

    def read(self, file: int, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        data = os.pread(file, size, offset)
        while 0 < len(data) < size:
            more = os.pread(file, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def forget(self, file: int, offset: int, size: int) -> None:
        """Have those bytes read from the disk the next time, and not from the page cache; a hint (posix_fadvise)."""
        os.posix_fadvise(file, offset, size, os.POSIX_FADV_DONTNEED)

    def map(self, file: int) -> mmap.mmap:
        """The whole file, read-only, in the address space."""
        return mmap.mmap(file, 0, access=mmap.ACCESS_READ)

    def sync(self, file: int) -> None:
        """Contents to the disk (fdatasync: with the length, without the times)."""
        os.fdatasync(file)

    def sync_directory(self, directory: Path) -> None:
        """Names to the disk: a new file is not durable before this."""
        file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def reserve(self, file: int, size: int) -> bool:
        """Take blocks for `size` bytes, its length as it is (fallocate(2)). False where the file system cannot."""
        if _libc.fallocate(file, _FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
            return True
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(number, os.strerror(number))
        return False

    def free(self, directory: Path) -> int:
        """Bytes that this user may still take there."""
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize

    def truncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def close(self, file: int) -> None:
        os.close(file)

    def lock(self, path: Path) -> int | str:
        """Take the lock file and write our process id into it; where another holds it, what it wrote."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 64, 0).decode("ascii", "replace").strip()
            os.close(file)
            return holder or "unknown"
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode("ascii"), 0)
        return file
