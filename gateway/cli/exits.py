"""How a command ends: one line on standard error, and an exit code that a script can act on.

0    done
1    a wrong configuration, or an error while running; the line says which
2    a wrong command line
75   another process holds the store: the same command may succeed later (EX_TEMPFAIL of sysexits.h)
130  Ctrl-C
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

import click

from gateway.errors import ConfigError, GatewayError, StoreError, StoreLockedError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
STORE_LOCKED: Final = 75
INTERRUPTED: Final = 130


class CommandError(Exception):
    """A command could not do what it was asked; the message says why, and the mend."""


SAID: Final = (CommandError, GatewayError, ConfigError, StoreError, OSError)
"""Errors whose message is meant for people. Any other is a fault of the program, and keeps its traceback."""


def explain(error: BaseException) -> int:
    """Say what went wrong; the exit code. An error that nobody foresaw is raised as it came."""
    error = _innermost(error)
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case click.UsageError():
            error.show()
            return USAGE
        case click.ClickException():
            return _say(error.format_message(), FAILED)
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case BrokenPipeError():
            _forget_stdout()  # `gateway sub orders | head`: the reader has seen enough
            return OK
        case StoreLockedError():
            return _say(str(error), STORE_LOCKED)
    if isinstance(error, SAID) or _is_of_the_client(error):
        return _say(str(error) or type(error).__name__, FAILED)
    raise error


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _is_of_the_client(error: BaseException) -> bool:
    """Whether it is a ClientError, without importing the client where no command did."""
    client = sys.modules.get("gateway.client.errors")
    return client is not None and isinstance(error, client.ClientError)


def _say(message: str, code: int) -> int:
    click.echo(f"error: {message}", err=True)
    return code


def _forget_stdout() -> None:
    """Give the interpreter's last flush somewhere to go (docs.python.org, signal, "Note on SIGPIPE")."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
