"""THE WAY: one stage a file, one verb each, a bounded ring in front of every stage.

admit -> route -> append -> [the log's flusher] -> notify -> deliver -> settle -> redeliver. Stages never import each
other; only `model` values pass between them, and `node` wires them.
"""
