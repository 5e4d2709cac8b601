"""Raw configuration to checked, derived settings.

Sources, weakest first: the defaults below, a TOML file, the environment (`GATEWAY_<SECTION>__<KEY>`), flags of the
command line. Every bound of the program stands here with its reason (`help`), and `gateway genconfig` prints them.
An unknown key or a wrong value is an error that names the source, the key and the mend; settings that contradict each
other are named together.
"""

from gateway.config.address import is_loopback, parse_address
from gateway.config.load import load
from gateway.config.reference import generate, reference
from gateway.config.settings import (
    Audit,
    Auth,
    Config,
    Deliver,
    Disk,
    Entry,
    Filter,
    Flow,
    Http,
    Jwt,
    Limits,
    Listen,
    Log,
    Pipeline,
    Pull,
    Quota,
    Ring,
    Shutdown,
    Store,
    Trace,
    WebSocket,
    entries,
    sections,
)

__all__ = [
    "Audit",
    "Auth",
    "Config",
    "Deliver",
    "Disk",
    "Entry",
    "Filter",
    "Flow",
    "Http",
    "Jwt",
    "Limits",
    "Listen",
    "Log",
    "Pipeline",
    "Pull",
    "Quota",
    "Ring",
    "Shutdown",
    "Store",
    "Trace",
    "WebSocket",
    "entries",
    "generate",
    "is_loopback",
    "load",
    "parse_address",
    "reference",
    "sections",
]
