"""For tests, ours and our users': a disk that fails on demand, and loses its power."""
