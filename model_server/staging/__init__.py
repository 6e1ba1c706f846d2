"""What goes into a deployable folder: doors, code and bundles, optimised and profiled."""
