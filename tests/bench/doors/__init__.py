"""What runs in the measured processes: bare programs that know nothing of the project, and ours, stubbed."""
