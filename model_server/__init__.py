"""What makes, names and serves models: the catalogue, fetching, exporting, checking and staging."""
