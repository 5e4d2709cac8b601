"""The nouns of delivery, synchronous: what a subscription is due, who holds what, what was settled."""
