"""What scenarios leave behind: cases with their figures, and the record of a sitting as one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import attrs
import cattrs
import orjson

from gateway.bench.figures import Figures
from gateway.bench.tally import Percentiles

SAME: Final = ("machine", "commit", "versions")
"""What two sittings must have in common to stand in one record."""


@attrs.frozen(kw_only=True)
class Counts:
    """Whether it adds up."""

    published: int = 0
    refused: int = 0
    delivered: int = 0
    lost: int = 0
    """Deliveries of accepted messages that have not come."""
    duplicates: int = 0
    invented: int = 0
    """Deliveries of what nobody has published, or with other bytes."""


@attrs.frozen(kw_only=True)
class Memory:
    """Of the gateway at the end, in bytes; None where it is not on this machine."""

    anon: float | None = None
    """Its own: heap and anonymous mappings (RssAnon in proc(5))."""
    file: float | None = None
    """Pages of mapped files, which the kernel takes back when it needs them (RssFile)."""
    peak: float | None = None


@attrs.frozen(kw_only=True)
class Case:
    """One load and what came of it."""

    name: str
    load: str
    """In one line, for people."""
    wrong: str = ""
    """What should not have happened; empty: nothing."""
    unit: str = "message"
    """What `units`, `per_s` and `cpu_us` count: a message, a delivery, a pull."""
    units: int = 0
    elapsed_s: float = 0.0
    per_s: float | None = None
    cpu_us: float | None = None
    """Server CPU for each unit."""
    server_cpu_share: float | None = None
    """Of one core."""
    load_cpu_share: float | None = None
    """Of one core; near 1 it is the load that was measured."""
    latency: dict[str, Percentiles] = attrs.field(factory=dict)
    """`confirm`: from the publish, or when it was due, to its answer; `delivery`: to the delivery's arrival."""
    memory: Memory = Memory()
    gc_pause_max_ms: float | None = None
    counts: Counts = Counts()
    extra: dict[str, float | None] = attrs.field(factory=dict)
    """What only this scenario measures; the unit ends the name."""
    detail: Figures | None = None


@attrs.frozen(kw_only=True)
class Outcome:
    """A scenario that was run."""

    date: str
    """When it ended, UTC."""
    scale: float
    """Of its full size; figures of a smaller one are for a look."""
    loop_ns: float
    """What a turn of an empty loop took before it began: three times as much where the machine has other work."""
    cases: list[Case]

    def case(self, name: str) -> Case | None:
        return next((case for case in self.cases if case.name == name), None)


@attrs.frozen(kw_only=True)
class Machine:
    """Where it was measured."""

    processor: str
    processors: int
    memory_bytes: int
    kernel: str
    store_filesystem: str
    """That holds the stores of gateways of our own; "" for a gateway that was given."""


@attrs.frozen(kw_only=True)
class Record:
    """Everything of one sitting."""

    machine: Machine
    versions: dict[str, str]
    commit: str
    """Of the working tree, with a + where it was changed; "" where there is none."""
    outcomes: dict[str, Outcome] = attrs.field(factory=dict)
    peers: dict[str, list[dict[str, Any]]] = attrs.field(factory=dict)
    """Peer -> lines of the peers' load generator."""

    def joined(self, later: Record) -> Record:
        """This one with what `later` has measured anew. Raises ValueError where they are not of one sitting."""
        for name in SAME:
            if getattr(self, name) != getattr(later, name):
                raise ValueError(
                    f"the record is of another {name}: {getattr(self, name)!r} is not {getattr(later, name)!r}; "
                    f"write to another file, or leave out --add"
                )
        return attrs.evolve(later, outcomes=self.outcomes | later.outcomes, peers=self.peers | later.peers)


def write(record: Record, file: Path) -> None:
    file.write_bytes(encode(record))


def encode(record: Record) -> bytes:
    return orjson.dumps(attrs.asdict(record), option=orjson.OPT_INDENT_2) + b"\n"


def read(file: Path) -> Record:
    """Raises ValueError with the mend."""
    try:
        return cattrs.structure(orjson.loads(file.read_bytes()), Record)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except (orjson.JSONDecodeError, cattrs.BaseValidationError) as error:
        raise ValueError(f"{file}: is no record of `gateway bench --json`: {error}") from None


def read_peers(text: str) -> tuple[str, list[dict[str, Any]]]:
    """`NAME=FILE`, the file being what the peers' load generator printed: one JSON object a line."""
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise ValueError(f"--peers {text!r}: write NAME=FILE")
    try:
        lines = [orjson.loads(line) for line in Path(path).read_bytes().splitlines() if line.startswith(b"{")]
    except OSError as error:
        raise ValueError(f"--peers {path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise ValueError(f"--peers {path}: {error}") from None
    return name, lines
