"""The container images: what is built by `python3 -m docker.images`, which needs nothing but Python and an engine."""
