"""A push gateway: every event is stored first, then pushed at least once to those it is due.

The way of the data is the shape of the tree. A file imports only from floors below it or from its own folder, without
circles; tests/test_house.py holds this map to the tree.

    floor  room                          what it is
    0      model errors steps            the words: values everyone speaks; one table of errors; what a stage tells
    0      principal                     the word for who asks, and what that one may do
    1      config/                       file, environment and flags -> checked settings
    1      kit/                          pure structures: ranges, tick wheel, order, table, topics. `now` is an argument
    2      wire/                         sans-I/O, bytes <-> words: http, push_v1, tmc_v2, top
    2      store/                        Bitcask: record, segment, hint, merge, log; and flusher (which knows trio)
    3      broker/                       the nouns, synchronous: subscription, consumer, lease, dedup
    4      engine/                       what the flow stands on: base (the protocol), embedded (store + broker)
    5      flow/                         THE WAY, one stage a file: admit -> route -> append -> notify -> deliver
                                         -> settle -> redeliver, sweep, merge
    5      auth/                         credentials and permissions: API keys, JWT -> principal; the audit log
    5      trace/                        the recorder of every step, its query, and its export
    6      edge/                         sockets and nurseries: listener, http, websocket, longpoll, tmc
    6      source/                       upstreams that it watches by itself: a PostgreSQL outbox, a file of JSON lines
    7      control/                      the control plane: Starlette app and metrics, over the edge's HTTP code
    8      node                          composition root: builds everything, wires the channels, opens the nursery
    9      cli/                          the command line
    10     __main__                      `python -m gateway`
    -      client/                       the SDK; imports words and wire only
    -      bench/ testing/               `gateway bench`; in-memory node and faulty disk for tests

The way of one message: an edge parses it into a `model.Batch` -> admit (limits, topic, id) -> route (which
subscriptions) -> append (a place in the log, bytes built once) -> [flusher: one write, one fdatasync for all that
waits] -> notify (answer the producer, wake the subscriptions) -> deliver (to the consumer with the largest free share
of its window) -> settle (ack, nack, extend, term) -> gone; or -> redeliver (lease over, backoff over, dead letter).
"""

__version__ = "0.1.0"
