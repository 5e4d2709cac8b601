"""Files of a store that others than its owner can read or change: payloads lie in them as they were published."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def exposed(directory: Path, names: Iterable[str]) -> list[str]:
    """Those files of a store's directory that group or others have rights to; "." where they may change names in it."""
    found = ["."] if directory.stat().st_mode & _OTHERS_WRITE else []
    for name in names:
        with suppress(FileNotFoundError):  # beside a gateway that runs
            status = (directory / name).lstat()
            if stat.S_ISREG(status.st_mode) and status.st_mode & _OTHERS:
                found.append(name)
    return found
