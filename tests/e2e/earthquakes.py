"""1,707 real events: a week of earthquakes, from the USGS feed that the npm package vega-datasets ships."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import msgspec

COUNT = 1707


class _Feed(msgspec.Struct):
    features: list[msgspec.Raw]


def fetch(directory: Path) -> Path:
    """The package's archive in `directory`; asks npm for it where it is not there yet."""
    found = sorted(directory.glob("vega-datasets-*.tgz"))
    if not found:
        command = ["npm", "pack", "vega-datasets@3", "--silent", "--pack-destination", str(directory)]
        subprocess.run(command, check=True, cwd=directory, capture_output=True, timeout=120)
        found = sorted(directory.glob("vega-datasets-*.tgz"))
    return found[-1]


def events(archive: Path) -> list[bytes]:
    """Each event's JSON, byte for byte as the feed has it."""
    with tarfile.open(archive) as package:
        file = package.extractfile("package/data/earthquakes.json")
        assert file is not None
        features = msgspec.json.decode(file.read(), type=_Feed).features
    return [bytes(feature) for feature in features]
