"""Kernels from source to launch: locates and digests `kernels/`, compiles with NVRTC, launches through CuPy."""
