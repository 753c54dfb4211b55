"""Host twins: plain NumPy functions that replace kernels on the host, and round at the same places."""
