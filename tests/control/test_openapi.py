from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import httpx
import pytest
import trio
from starlette.routing import Route

from gateway.config import Config
from gateway.control.app import ControlPlane
from gateway.control.call import Right
from gateway.control.openapi import document as document_of
from gateway.control.schemas import SCHEMAS
from gateway.control.sources import Sources
from gateway.errors import TABLE
from gateway.node import Node

TOP = Path(__file__).parent.parent.parent


@pytest.fixture
def plane() -> ControlPlane:
    """The control plane of no node: it has its routes and its document."""
    rooms: dict[str, Any] = {field.name: SimpleNamespace() for field in attrs.fields(Sources)}
    return ControlPlane(Sources(**rooms | {"config": Config()}))


async def document(control: httpx.AsyncClient) -> dict[str, Any]:
    answer = await control.get("/openapi.json")
    assert answer.status_code == 200
    return cast("dict[str, Any]", answer.json())


async def test_every_route_is_in_the_document_and_the_other_way_round(
    plane: ControlPlane, control: httpx.AsyncClient
) -> None:
    paths = (await document(control))["paths"]
    documented = {(path, method.upper()) for path, item in paths.items() for method in item if method != "parameters"}
    assert documented == {(call.path, call.method) for call in plane.calls}
    assert paths.keys() == {cast("Route", route).path for route in plane.app.routes}


async def test_what_a_path_allows_is_what_is_documented(control: httpx.AsyncClient) -> None:
    for path, item in (await document(control))["paths"].items():
        methods = {method.upper() for method in item if method != "parameters"} | {"OPTIONS"}
        methods |= {"HEAD"} if "GET" in methods else set()
        allow = (await control.options(re.sub("{.*?}", "x", path))).headers["allow"]
        assert set(allow.split(", ")) == methods


def test_what_needs_credentials_says_so_where_there_are_any(plane: ControlPlane) -> None:
    for has_credentials in (True, False):
        found = document_of(plane.calls, has_credentials)
        needed: list[dict[str, list[str]]] = [{"bearer": []}] if has_credentials else []
        assert list(found["components"]["securitySchemes"]) == ["bearer"] * has_credentials
        for call in plane.calls:
            security = found["paths"][call.path][call.method.lower()].get("security", found["security"])
            assert security == ([] if call.needs is Right.OPEN else needed), call.name


async def test_names_of_operations_are_given_once(plane: ControlPlane) -> None:
    names = [call.name for call in plane.calls]
    assert len(set(names)) == len(names)


async def test_every_schema_that_is_referred_to_is_there_and_used(control: httpx.AsyncClient) -> None:
    text = (await control.get("/openapi.json")).text
    assert set(re.findall(r'"#/components/schemas/(\w+)"', text)) == SCHEMAS.keys()


async def test_every_error_response_names_its_codes(control: httpx.AsyncClient) -> None:
    for path, item in (await document(control))["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            for status, response in operation["responses"].items():
                if int(status) < 400:
                    continue
                described, codes = response["content"]["application/json"]["schema"]["allOf"]
                assert described == {"$ref": "#/components/schemas/Error"}, path
                for code in codes["properties"]["code"]["enum"]:
                    assert TABLE[code].status == int(status)


async def test_the_document_does_not_change_while_a_node_runs(control: httpx.AsyncClient) -> None:
    assert (await control.get("/openapi.json")).content == (await control.get("/openapi.json")).content


@pytest.mark.slow
async def test_schemathesis_finds_nothing_that_the_document_does_not_say(
    node: Node, plane: ControlPlane, tmp_path: Path
) -> None:
    """Examples, every edge of every schema, random calls good and bad, and sequences of calls; all its checks."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://{node.control_address}/openapi.json"]
    command += ["--seed", "1", "--max-examples", "10", "--checks", "all", "--no-color", "--warnings", "off"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.control.schemathesis_hooks", "PYTHONPATH": str(TOP)}
    with trio.fail_after(120):  # ten seconds where nothing else runs
        done = await trio.run_process(
            command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path
        )
    report = done.stdout.decode()
    assert done.returncode == 0, report
    assert f"Tested: {len(plane.calls) - 1}\n" in report  # the call that answers the document is left out
