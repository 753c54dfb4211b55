"""Host twins: plain NumPy functions that stand in for kernels and round where the kernels round."""
