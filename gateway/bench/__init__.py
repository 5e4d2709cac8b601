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
    cases      these figures beside those of other loads
    clients/   loads of many connections, in a process of their own
    child      such a process, seen from here
    measuring  its load, measured: the gateway before and after it
    probe      how long the gateway takes to answer meanwhile
    piling     messages that pile up, and are taken out again to the last one
    scenarios/ the loads that have names
    ground     where they are measured: gateways of their own, or the one that was given
    sitting    one scenario after the other: bounded, shown, ended by a signal
    profile    flame graphs of the gateway
    machine    where and with what it was measured
    record     all that was measured in one sitting, as a JSON file
    budget     what the figures must be
    table      a record as Markdown
    report     the figures on a terminal
    cli        the command
    storing/   the store's own figures: `python -m gateway.bench.storing`
    costs      what filters, conversion and routing cost: `python -m gateway.bench.costs`

The load must not become the limit, so it does less for a message than the gateway does: nothing is parsed that can be
found by its place, frames are masked with a key of zeros (which changes nothing, RFC 6455 §5.3), and the histograms are
written once for all messages that share a time stamp. The report says what share of a core the load took.
"""
