"""What Triton's Python backend runs: each of these files is copied into a model repository as a `model.py`."""
