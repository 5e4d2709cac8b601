"""Credentials in earnest: a gateway in a process of its own, an issuer that rotates its keys, the commands, the SDK."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trio

from gateway import client
from gateway.auth import signing
from tests.auth.making import AUDIENCE, ISSUER, jwks, private, public_jwk
from tests.e2e.process import GatewayProcess

LIFE_S = 3


class Issuer:
    """Publishes its keys at an address, and signs with the newest."""

    def __init__(self) -> None:
        self.names = ["k1"]
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the library's name
                keys = [public_jwk("ES256", name, kid=name) for name in issuer.names]
                body = jwks(*keys)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/jwks"

    def token(self, subject: str) -> str:
        now_s = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now_s, "exp": now_s + LIFE_S}
        claims["push"] = {"publish": ["trade.>"], "subscribe": ["orders"]}
        return signing.sign(private("ES256", self.names[-1]), "ES256", claims, self.names[-1])

    def __enter__(self) -> Issuer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def running(tmp_path: Path, issuer: Issuer) -> Iterator[GatewayProcess]:
    (tmp_path / "keys.json").write_text("")
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'[auth]\nkeys_file = "{tmp_path / "keys.json"}"\nreload_s = 0.2\n'
        f'[audit]\nfile = "{tmp_path / "audit.jsonl"}"\n'
        f'[[jwt]]\nname = "login"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nkeys = "{issuer.url}"\n'
        f'algorithms = ["ES256"]\nrefresh_min_s = 0.2\n'
    )
    with GatewayProcess(tmp_path, "--config", str(file)) as gateway:
        yield gateway
        assert gateway.terminate() == 0


def gateway(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=os.environ)


def make_key(running: GatewayProcess, *arguments: str) -> Path:
    """A key, made with the gateway running, in a file of its own; the gateway knows it when this returns."""
    file = running.directory / f"{arguments[0]}.key"
    done = gateway("key", "create", *arguments, "--keys-file", str(running.directory / "keys.json"))
    assert done.returncode == 0, done.stderr
    file.write_text(done.stdout)
    deadline = time.monotonic() + 5
    while listing(running, file).returncode:
        assert time.monotonic() < deadline, listing(running, file).stderr
    return file


def listing(running: GatewayProcess, key: Path) -> subprocess.CompletedProcess[str]:
    return gateway("subscription", "list", "--control-url", running.control, "--token-file", str(key))


@pytest.mark.slow
async def test_a_program_goes_on_over_expiry_and_rotation_and_nothing_secret_is_written(
    running: GatewayProcess, issuer: Issuer
) -> None:
    operator = make_key(running, "operator", "--admin", ">")
    control = ("--control-url", running.control, "--token-file", str(operator))
    assert gateway("subscription", "create", "orders", "--topic", "trade.>", *control).returncode == 0
    given: list[str] = []

    async def token() -> str:
        given.append(issuer.token("alice"))
        return given[-1]

    async with client.connect(running.websocket, token=token) as sdk, sdk.subscribe("orders") as messages:
        first = sdk.connection_id
        await sdk.publish("trade.paid", 1)
        assert (await anext(messages)).data == 1
        issuer.names.append("k2")  # and the next token is signed with it
        with trio.fail_after(60):
            while len(given) < 5:  # three lives of a token, and most of a fourth
                await trio.sleep(0.05)
        assert sdk.connection_id == first, "it was never reconnected"
        await sdk.publish("trade.paid", 2)
        assert (await anext(messages)).data == 2
        with pytest.raises(client.GatewayError, match=r"may not publish to bank\.paid"):
            await sdk.publish("bank.paid", 3)
    written = running.log.read_text() + (running.directory / "audit.jsonl").read_text()
    assert "login:alice" in written
    assert "permission_denied" in written
    for secret in (operator.read_text().strip(), *given):
        assert secret not in written
        assert secret.rpartition(".")[2] not in written


@pytest.mark.slow
async def test_a_revoked_key_ends_the_program_that_has_it_within_five_seconds(running: GatewayProcess) -> None:
    operator = make_key(running, "operator", "--admin", ">", "--subscribe", ">")
    control = ("--control-url", running.control, "--token-file", str(operator))
    assert gateway("subscription", "create", "orders", "--topic", "trade.>", *control).returncode == 0
    key_id = operator.read_text().split("_")[1]
    async with client.connect(running.websocket, token=operator.read_text().strip()) as sdk:
        messages = await sdk.subscribe("orders").__aenter__()
        began = trio.current_time()
        gateway("key", "revoke", key_id, "--keys-file", str(running.directory / "keys.json"))
        with trio.fail_after(10), pytest.raises(client.ConnectionEndedError, match="was revoked") as ended:
            await anext(messages)
        assert ended.value.code == 3500
        assert trio.current_time() - began < 5
    assert listing(running, operator).returncode == 1


@pytest.mark.slow
async def test_hup_takes_the_credentials_of_the_file_and_ends_who_has_lost_his(running: GatewayProcess) -> None:
    operator = make_key(running, "operator", "--admin", ">", "--subscribe", ">")
    control = ("--control-url", running.control, "--token-file", str(operator))
    assert gateway("subscription", "create", "orders", "--topic", "trade.>", *control).returncode == 0
    file, others = running.directory / "gateway.toml", running.directory / "others.json"
    good = file.read_text()
    async with client.connect(running.websocket, token=operator.read_text().strip()) as sdk:
        messages = await sdk.subscribe("orders").__aenter__()
        file.write_text(good + "\n[nonsense]\n")
        running.signal(signal.SIGHUP)
        while "the last good one stays" not in running.log.read_text():
            await trio.sleep(0.02)
        assert listing(running, operator).returncode == 0
        others.write_text("")
        file.write_text(good.replace("keys.json", "others.json"))
        running.signal(signal.SIGHUP)
        with trio.fail_after(10), pytest.raises(client.ConnectionEndedError, match="was removed"):
            await anext(messages)
    assert listing(running, operator).returncode == 1
