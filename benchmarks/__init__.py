"""Benchmarks beyond runs of a workload: single kernels, and other implementations (peers)."""
