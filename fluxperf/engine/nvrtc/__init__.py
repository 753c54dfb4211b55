"""Kernels from source to launch: finding and digesting `kernels/`, compiling with NVRTC, launching through CuPy."""
