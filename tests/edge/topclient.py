"""The npm package node-taobao-topclient, installed once beside the virtual environment, and calls by it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

PACKAGE = "node-taobao-topclient@0.1.7"
_DIRECTORY = Path(sys.prefix) / "npm"
_SCRIPT = """
const TopClient = require("node-taobao-topclient").default;
const [options, calls] = JSON.parse(process.argv[1]);
const client = new TopClient(options);
(async () => {
  const answers = [];
  for (const [method, parameters] of calls) {
    try {
      answers.push(await client.execute(method, parameters));
    } catch (error) {
      answers.push({ error: error.name, code: error.code, sub_code: error.sub_code, message: error.message });
    }
  }
  console.log(JSON.stringify(answers));
})();
"""


@functools.cache
def _installed() -> str:
    """Why it is not there; empty where it is."""
    if not (_DIRECTORY / "node_modules" / PACKAGE.partition("@")[0]).exists():
        npm = shutil.which("npm")
        if npm is None:
            return "needs npm (Debian: apt-get install npm; `make test` does it as root)"
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(_DIRECTORY), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            return f"npm cannot install {PACKAGE}: {done.stderr[-300:]}"
    return ""


async def execute(
    url: str, key: str, secret: str, calls: list[tuple[str, dict[str, Any]]], zone: str = "Asia/Shanghai"
) -> list[Any]:
    """What each call gave; it skips the test where the package cannot be had. The client signs local time."""
    missing = await trio.to_thread.run_sync(_installed)
    if missing:
        pytest.skip(missing)
    options = {"appkey": key, "appsecret": secret, "REST_URL": url}
    environment = {**os.environ, "TZ": zone, "NODE_NO_WARNINGS": "1", "NO_PROXY": "*"}
    with trio.fail_after(60):
        done = await trio.run_process(
            ["node", "--eval", _SCRIPT, json.dumps([options, calls])],
            cwd=_DIRECTORY,
            env=environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    answers: list[Any] = json.loads(done.stdout)
    return answers
