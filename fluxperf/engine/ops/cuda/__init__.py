"""CUDA implementations: kernels of `kernels/`, products by cuBLASLt, attention by cuDNN. CuPy is imported lazily."""
