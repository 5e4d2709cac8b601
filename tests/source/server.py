"""A real PostgreSQL server in a temporary directory, on a Unix socket and on loopback, that can be killed."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from tests.e2e.process import free_port


def programs() -> Path | None:
    """Where the server's programs are; Debian keeps them off the search path."""
    found = shutil.which("initdb")
    candidates = [os.path.realpath(found)] if found else []
    candidates += sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)
    for candidate in candidates:
        if Path(candidate).with_name("postgres").exists():
            return Path(candidate).parent
    return None


def _user() -> str | None:
    """The server refuses to run as root: another user then. None: as we are."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class PostgresServer:
    """`start`, `kill`, `stop` as often as you like; the data stays."""

    def __init__(self, bin_directory: Path) -> None:
        self._bin = bin_directory
        self._user = _user()
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-pg-"))
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        self.port = free_port()
        self.url = f"host={self.directory} port={self.port} user=gateway dbname=postgres"
        self.tcp_url = f"postgresql://gateway@localhost:{self.port}/postgres"
        self._data = self.directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--auth=trust", "--username=gateway", "--encoding=UTF8", "--no-sync", "-D", str(self._data))

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._user,
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
            timeout=120,
        )

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = {
            "listen_addresses": "localhost",
            "unix_socket_directories": str(self.directory),
            "port": str(self.port),
            "fsync": "off",  # the server is killed, never the machine
            "max_connections": "20",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self._data), *arguments],
                user=self._user,
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.directory / "server.log").read_text()
                assert self._process.poll() is None, (self.directory / "server.log").read_text()
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """An immediate shutdown: every session is cut where it is, and the next start recovers from the log."""
        assert self._process is not None
        self._process.send_signal(3)  # SIGQUIT
        self._process.wait(timeout=60)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.directory)

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own; its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
