"""Our backends against the raw calls of what they stand on, both measured in one interleaved run.

`python -m tests.bench.backends` runs everything: a real Triton, which it starts, asked by us and by Triton's own
client; our TorchScript and TensorFlow against the module's and the signature's own call, each under the interpreter
that has it (.venv-torch and .venv-tf, or TEST_TORCHSCRIPT_PYTHON and TEST_TENSORFLOW_PYTHON). Every arm is a process of
its own that does so many calls when it is told to, so that its processor time is its own; the server's is nobody's.
"""
