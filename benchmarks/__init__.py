"""Benchmarks that are not runs of a workload: kernels on their own, and peers."""
