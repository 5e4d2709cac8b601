"""Sans-I/O protocols: bytes to words and back. Nothing here waits, and nothing here imports trio."""
