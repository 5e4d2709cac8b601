"""Upstreams that the gateway watches by itself: what happens there is published here, by the door that edges use.

A source is one file with one class (`base.Source`): it opens its upstream, publishes what it finds, and raises where
it cannot go on. `watch` keeps each of them running for as long as the node does; `build` makes them of the settings.
"""
