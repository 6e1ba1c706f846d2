"""NVIDIA's Triton: model repositories for it, and starting it."""
