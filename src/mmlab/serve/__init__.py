"""A loopback venue: the exchange's own WebSocket and REST dialect, played from a seed or a recording, with faults."""
