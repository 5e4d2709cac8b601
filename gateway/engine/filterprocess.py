"""The process that asks long filters: `python -m gateway.engine.filterprocess CPU_S MEMORY_BYTES`.

In: a length of four bytes, big-endian, and a JSON object `{"filters":[text,...],"variables":{...}}`; again and again.
Out: a line for each filter, in order, as soon as it is known: `1`, `0`, or `!` and why it cannot be said.

The library bounds an evaluation's iterations (10,000), not what one of them costs, and holds the interpreter meanwhile.
Here the kernel ends what takes too long: SIGPROF comes when the processor time of one question is over, and nobody
handles it. What is too large fails to allocate. Either way the gateway sees the end of the lines, and knows by their
number which filter it was.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import Final

import orjson

from gateway.broker.filter import Activation, Filter, FilterError

_FILTERS_MAX: Final = 1000
"""Compiled filters kept; beyond it they are compiled anew."""


def main(cpu_s: float, memory_bytes: int) -> None:
    """Answer until the input ends."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except (OSError, ValueError) as error:  # a sandbox may forbid it; the bound of time holds all the same
        print(f"the process of long filters: its memory cannot be bounded: {error}", file=sys.stderr, flush=True)
    known: dict[str, Filter] = {}
    while head := sys.stdin.buffer.read(4):
        question = orjson.loads(sys.stdin.buffer.read(int.from_bytes(head, "big")))
        variables = Activation(question["variables"])
        for text in question["filters"]:
            signal.setitimer(signal.ITIMER_PROF, cpu_s)
            filter_ = known.get(text)
            if filter_ is None:
                if len(known) >= _FILTERS_MAX:
                    known.clear()
                filter_ = known[text] = Filter(text)
            os.write(1, _answer(filter_, variables))


def _answer(filter_: Filter, variables: Activation) -> bytes:
    try:
        return b"1\n" if filter_.evaluate(variables) else b"0\n"
    except FilterError as error:
        return b"!%b\n" % str(error).replace("\n", " ").encode()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
