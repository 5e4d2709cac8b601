"""The log store, after Bitcask: append-only segments, one of them active, an index in memory, CRC on every record."""
