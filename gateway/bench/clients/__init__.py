"""Loads of many connections, in a process of their own: plain sockets under one epoll, no run loop and no parsing.

What a run loop costs for each wake would be more than what the gateway costs for a message that comes alone; the load
would be the limit, and frames would grow while it catches up. Here a delivery takes some 10 us, its ack included.

    file           what it is
    __main__       the process: an order in, what came of it out
    order          what the process is told, and what it says
    loop           epoll, and sockets under it
    connections    WebSocket connections, opened many at a time
    many           subscriptions with a consumer each: fan-out, a message a second, a topic each
    publishing     HTTP publishes over kept-alive connections
    pulling        pulls of one message
    large          large payloads, HTTP in and WebSocket out
    holding        consumers that let their leases run out
    beside         one that publishes now and then while others are at work
"""
