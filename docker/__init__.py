"""Images, deployments and releases: `docker.images` and `docker.deploy` need nothing but Python and their tools."""
