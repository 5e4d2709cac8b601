"""What the store costs and how fast it is (design §4 and §10): `python -m gateway.bench.storing PART...`.

    append      the log against a bare writer of the same bytes, in turns
    size        bytes on disk for a message, by the size of its batch
    restart     from the start of the process to /readyz, and resident memory, half of the messages settled
    backlog     resident memory while all of them wait, and the time to a new consumer's first message
    drain       a backlog in sealed segments against live delivery
    merge       publishing as fast as it goes, and at a rate, beside merging and without it, in turns
    copies      where the bytes of a delivery come from, by counters and, where there is strace, by its system calls
    all         one after the other

With several sizes (`--messages 1000000 --messages 3000000`) of `restart` and `backlog` one table more says how they
grow, and what 100 million messages would come to on that line.

Stores are filled in this process, by the engine's own appender: the same files as over a socket, in less time.
"""
