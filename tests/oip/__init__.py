"""Servers of the Open Inference Protocol that are not Triton, run in environments of their own."""
