"""The parts of tests/tfserving_server.py that need TensorFlow and the official generated messages."""
