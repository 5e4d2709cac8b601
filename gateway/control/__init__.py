"""The control plane: subscriptions, connections, health and metrics, as ASGI over the same HTTP code."""
