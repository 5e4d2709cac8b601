"""What the flow stands on. `base` is the protocol, `embedded` the engine in this process."""
