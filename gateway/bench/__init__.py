"""`gateway bench`: how fast is it here, and is anything lost on the way?

    file       what it is
    plan       what is asked for, checked; where the gateway is
    layout     the messages under test: bytes out, and read back without parsing
    frames     WebSocket as a client, sans-I/O
    link       connections: WebSocket, and HTTP/1.1 kept alive
    pace       when the next message is due
    tally      what was published, confirmed and received, and how long it took
    load       publishers and subscribers
    idle       connections that only stand there
    own        a gateway of our own in a directory of its own, gone when we are
    vitals     the server from outside: CPU, memory, its metrics
    run        one run from its beginning to its figures
    report     the figures as a table
    cli        the command

The load must not become the limit, so it does less for a message than the gateway does: nothing is parsed that can be
found by its place, frames are masked with a key of zeros (which changes nothing, RFC 6455 §5.3), and the histograms are
written once for all messages that share a time stamp. The report says what share of a core the load took.
"""
