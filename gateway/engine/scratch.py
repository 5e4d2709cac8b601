"""The file tier's file: memory of the broker that may be slow, in the store's directory.

It has no name (unlinked at its birth, so a crash leaves nothing behind), is read by nobody but this process, and means
nothing to the next one. Its space is reserved before it is mapped: a page that has no place on the disk when it is
written ends the process (SIGBUS). Where there is no space, memory is taken beyond the bound instead: what is
in flight may not be lost.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import structlog

from gateway.broker.lease import Keeper
from gateway.broker.shelf import EXTENT_RECORDS, RECORD_BYTES, Shelf
from gateway.kit.table import Extents, Table, anonymous

_log = structlog.get_logger("gateway.scratch")


class ScratchFile(Extents):
    """The first extents in anonymous memory, up to `direct_bytes_max`; the others in the file."""

    def __init__(self, directory: str, direct_bytes_max: int) -> None:
        self.file_extent = max(direct_bytes_max // (RECORD_BYTES * EXTENT_RECORDS), 1)
        self.refusals = 0  # extents that the disk had no space for
        self._directory = Path(directory)
        self._descriptor = -1
        self._mapped: set[int] = set()  # extents in the file

    def shelf(self, tick_ms: int) -> Shelf[Keeper]:
        return Shelf(tick_ms, Table(RECORD_BYTES, EXTENT_RECORDS, self), self.file_extent)

    def open(self, number: int, size: int) -> mmap.mmap:
        if number < self.file_extent:
            return anonymous(size)
        offset = (number - self.file_extent) * size
        try:
            if self._descriptor < 0:
                self._descriptor = _nameless(self._directory)
            os.posix_fallocate(self._descriptor, offset, size)
            mapping = mmap.mmap(self._descriptor, size, offset=offset)
        except OSError as error:
            self.refusals += 1
            _log.warning("no space for records of leases; memory is used instead", error=str(error))
            return anonymous(size)
        self._mapped.add(number)
        return mapping

    def close(self, number: int, mapping: mmap.mmap) -> None:
        mapping.close()
        self._mapped.discard(number)
        if not self._mapped:
            self.end()

    def end(self) -> None:
        """Let go of the file; what is mapped of it stays until it is closed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _nameless(directory: Path) -> int:
    descriptor, path = tempfile.mkstemp(prefix="inflight-", dir=directory)
    os.unlink(path)
    return descriptor
