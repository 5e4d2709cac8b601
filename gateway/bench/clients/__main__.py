"""The process of a load: `python -m gateway.bench.clients`.

It reads an order, connects, says that it is ready, and begins when it is told to. It ends when its input does.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from typing import Any, Final

import attrs
import cattrs
import orjson

from gateway.bench.clients.beside import Beside
from gateway.bench.clients.holding import Holding
from gateway.bench.clients.large import Large
from gateway.bench.clients.many import Many
from gateway.bench.clients.order import FAILED, OVER, PROGRESS, READY, Load, Order
from gateway.bench.clients.publishing import Publishing
from gateway.bench.clients.pulling import Pulling
from gateway.bench.link import LinkLostError
from gateway.bench.own import raise_descriptor_limit

LOADS: Final[dict[str, type[Any]]] = {
    "many": Many,
    "publishing": Publishing,
    "pulling": Pulling,
    "large": Large,
    "holding": Holding,
    "beside": Beside,
}
_PROGRESS_S: Final = 0.25


def main() -> None:
    """One order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    raise_descriptor_limit()
    order = cattrs.structure(orjson.loads(sys.stdin.buffer.readline()), Order)
    try:
        _carry_out(LOADS[order.load](**order.arguments), order)
    except LinkLostError as error:
        _say(FAILED, why=str(error))
    sys.stdin.buffer.read()


def _carry_out(load: Load, order: Order) -> None:
    load.open(order.address)
    gc.collect()
    gc.disable()  # its pauses would be found in the gateway's latencies
    _say(READY)
    if not sys.stdin.buffer.readline():
        return
    telling = threading.Thread(target=_tell, args=(load,), daemon=True)
    telling.start()
    began_s = time.process_time()
    load.run()
    load.result.cpu_s = time.process_time() - began_s
    _say(OVER, result=attrs.asdict(load.result))


def _tell(load: Load) -> None:
    """Now and then, how far it is."""
    while True:
        time.sleep(_PROGRESS_S)
        done, total = load.progress()
        _say(PROGRESS, done=done, total=total)


def _say(what: str, **more: Any) -> None:
    line = orjson.dumps({"said": what, **more}, option=orjson.OPT_NON_STR_KEYS)
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
