"""Connections: who is there, and how each one does; and cutting one off (protocol.md §5)."""

from __future__ import annotations

from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import Response

from gateway.control.call import JSON, Answer, Call, Right, array, json_array, ref
from gateway.control.sources import Sources

CLOSE_CODE: Final = 3001
"""An operator's close says nothing against the client, so it lies in 3000-3499, where clients reconnect (protocol.md
§2). Of those 3005, 3008 and 3012 name causes that are not true, and 3013 a drain that was not given; 3001 is left: the
gateway ends this connection."""


class ConnectionCalls:
    """The calls on connections."""

    def __init__(self, sources: Sources) -> None:
        self._connections = sources.connections

    def calls(self) -> list[Call]:
        return [
            Call(
                name="listConnections",
                method="GET",
                path="/v1/connections",
                summary="All open WebSocket connections",
                answers=(Answer(200, "Every connection that is open.", {JSON: array(ref("Connection"))}),),
                respond=self.list_all,
                needs=Right.VIEW,
            ),
            Call(
                name="closeConnection",
                method="DELETE",
                path="/v1/connections/{connection}",
                summary="Close a connection",
                description=(
                    f"Begins the closing handshake with {CLOSE_CODE}: what the client held goes back to its "
                    "subscriptions, and it may reconnect."
                ),
                answers=(Answer(204, "The connection is closing."),),
                errors=("connection_not_found",),
                respond=self.close,
            ),
        ]

    async def list_all(self, request: Request) -> Response:
        return await json_array(attrs.asdict(connection.view()) for connection in self._connections)

    async def close(self, request: Request) -> Response:
        connection = self._connections.get(request.path_params["connection"])
        connection.close(CLOSE_CODE, "closed by the operator")
        return Response(status_code=204)
