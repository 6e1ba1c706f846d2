"""One command a host: `python3 -m docker.deploy.azure` and `python3 -m docker.deploy.google`.

Nothing but Python and the cloud's own tool is needed, and with --dry-run not even the tool.
"""
