# A stand-in for tensorflow/serving, whose server is in no package registry: our tests' server, which speaks its
# protocols and takes its command line, on the TensorFlow of the function's image. docker/engine.sh builds both, in the
# context of the tests, where the real image cannot be had.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# The function's stage of packages with RUNTIME=tensorflow.
ARG TENSORFLOW_IMAGE=thinlens/tensorflow-packages:2.21.0
FROM ${PYTHON_IMAGE} AS messages
COPY tfserving-requirements.txt /tmp/requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --root-user-action=ignore --target /messages -r /tmp/requirements.txt grpcio==1.85.1

FROM ${TENSORFLOW_IMAGE}
COPY --from=messages /messages /opt/stand-in
COPY tfserving_standin/*.py /opt/stand-in/tests/tfserving_standin/
RUN printf '%s\n' '#!/bin/sh' 'cd /opt/stand-in && exec /opt/venv/bin/python -m tests.tfserving_standin "$@"' \
        > /usr/bin/tensorflow_model_server \
    && chmod -R a+rX /opt/stand-in \
    && chmod +x /usr/bin/tensorflow_model_server
ENV TF_CPP_MIN_LOG_LEVEL=3
