"""`make crash` goes on for long, and says how far it is."""

from __future__ import annotations

import time

import pytest

from tests.crash.spread import Say


@pytest.fixture
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Say:
    """Say something past what pytest keeps to itself."""

    def said(what: str) -> None:
        with capsys.disabled():
            print(f"\n{time.strftime('%H:%M:%S')} {request.node.name}: {what}", end="", flush=True)

    return said
