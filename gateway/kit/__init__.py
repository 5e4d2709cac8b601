"""Pure structures. No I/O, no clock: `now` is an argument."""
