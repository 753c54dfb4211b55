"""Peers: other implementations of the same workload, measured in the same run with the same records."""
