"""A release, made by one command: packages for the clouds, what is in them, checksums and the changelog."""
