"""The SDK: publish to a push gateway and read subscriptions, on Trio.

    from gateway import client

    async with client.connect("ws://127.0.0.1:8080/v1/connect") as gateway:
        await gateway.publish("trade.order.paid", {"amount": 12})
        async with gateway.subscribe("orders") as messages:
            async for message in messages:
                print(message.data)

A message whose body was left normally is acked, one whose body raised is nacked (`subscription` says it exactly).
Delivery is at least once: a lost connection, or a lease that runs out, brings a message again.

    file            what it is
    gateway         connect, Gateway: the connection kept, publishing, subscribing
    subscription    reading, and what settles a message
    received        one delivered message and its verbs
    message         one message to publish
    publishing      publishes on their way, over losses too
    attachment      one subscription on one connection
    settling        acks and the like, gathered into ranges
    renewal         when a token is replaced by a fresh one
    session         what is said over one connection: the decisions; connection: the waiting; dialing: how it is made
    errors          what can go wrong
"""

from gateway.client.errors import (
    ClientError,
    ConnectionEndedError,
    LeaseLostError,
    NotConnectedError,
    OutcomeUnknownError,
)
from gateway.client.gateway import Gateway, connect
from gateway.client.message import Message
from gateway.client.publishing import Result, Stored
from gateway.client.received import ReceivedBatch, ReceivedMessage
from gateway.client.subscription import BatchSubscription, Subscription
from gateway.errors import GatewayError

__all__ = [
    "BatchSubscription",
    "ClientError",
    "ConnectionEndedError",
    "Gateway",
    "GatewayError",
    "LeaseLostError",
    "Message",
    "NotConnectedError",
    "OutcomeUnknownError",
    "ReceivedBatch",
    "ReceivedMessage",
    "Result",
    "Stored",
    "Subscription",
    "connect",
]
