"""Peers: other implementations of the same workload, measured in the same run and stored in the same records."""
