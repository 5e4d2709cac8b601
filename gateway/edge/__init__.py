"""Sockets and nurseries: where bytes come in and go out. One nursery a connection; its failure ends it alone."""
