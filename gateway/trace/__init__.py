"""The trace: what happened to every message, kept for a while on a log of its own, and asked for by id.

`recorder` is told by the stages (steps.py) and keeps batch events (`event`: their bytes) in a bounded buffer; one task
has them written off the run loop (`files`: segments, retention). `search` finds the events of a position or an id,
`timeline` reads them as what happened to one message, and follows it through dead letters. `lines` is the export.

It is a witness, not a ledger: no fsync, and what finds no room is dropped and counted.
"""
