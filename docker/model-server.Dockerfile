# A model server with our bundles inside. Only the stages that the choice needs are built:
#
#   docker build -f docker/model-server.Dockerfile -t thinlens-models .                               Triton
#   docker build -f docker/model-server.Dockerfile -t thinlens-models --build-arg SERVER=tfserving .  TensorFlow Serving
#
# SERVER    triton | tfserving
# DEVICE    cpu | gpu
# BUNDLES   names of bundles in model_server/models, separated by spaces
# PLATFORM  for Triton: onnx | torchscript (its own) | python (ONNX Runtime in its Python backend, on the processor)
#           | tensorflow (with TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.02-py3, the last that has it)
# FORWARD   for Triton: tensor | encoded (the server decodes the picture and does all the work)
# GIT_SHA, VERSION  for the labels
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.06-py3
ARG TFSERVING_IMAGE=tensorflow/serving:2.20.0
ARG TFSERVING_GPU_IMAGE=tensorflow/serving:2.19.1-gpu
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG SERVER=triton
ARG DEVICE=cpu
ARG BUNDLES=coco-ssd-mobilenet-v2
ARG PLATFORM=onnx
ARG FORWARD=tensor

FROM ${PYTHON_IMAGE} AS builder
SHELL ["/bin/sh", "-euc"]
ENV PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY docker/locks/google/external-tensor-http.txt lock.txt
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --require-hashes -r lock.txt
COPY shared/ shared/
COPY model_server/ model_server/
ARG BUNDLES
RUN test -n "${BUNDLES}" || { echo 'BUNDLES: expected names of bundles, separated by spaces; found none' >&2; exit 1; }

FROM builder AS repository-triton
ARG PLATFORM
ARG FORWARD
ARG DEVICE
# ONNX Runtime's package for GPUs is built for a newer CUDA than Triton's image has.
RUN test "${PLATFORM}-${DEVICE}" != python-gpu \
    || { echo 'PLATFORM=python runs on the processor; expected onnx or torchscript with DEVICE=gpu' >&2; exit 1; }
# hadolint ignore=SC2086
RUN python -m model_server triton ${BUNDLES} /repository \
        --platform "${PLATFORM}" --forward "${FORWARD}" --device "${DEVICE}"; \
    chmod -R a+rX /repository

# One folder and one configuration for all bundles; names that two of them share stop it.
FROM builder AS repository-tfserving
ARG PLATFORM
ARG FORWARD
RUN test "${PLATFORM}-${FORWARD}" = onnx-tensor \
    || { echo 'PLATFORM and FORWARD are for SERVER=triton' >&2; exit 1; }
RUN mkdir /repository; \
    echo 'model_config_list {' > /repository/models.config; \
    for bundle in ${BUNDLES}; do \
        python -m model_server tfserving "${bundle}" "one/${bundle}"; \
        sed '1d;$d' "one/${bundle}/models.config" >> /repository/models.config; \
        for model in "one/${bundle}"/*/; do mv -T "${model}" "/repository/$(basename "${model}")"; done; \
    done; \
    echo '}' >> /repository/models.config; \
    echo 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }' > /repository/monitoring.config; \
    chmod -R a+rX /repository

# The models of Triton's Python backend import packages; the other platforms need none. Its numpy stays as it is: the
# backend is built against that one.
FROM ${TRITON_IMAGE} AS packages-none
FROM ${TRITON_IMAGE} AS packages-python
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=docker/locks/triton.txt,target=/tmp/lock.txt \
    python3 -m pip install --no-deps --require-hashes --break-system-packages --root-user-action=ignore -r /tmp/lock.txt
FROM packages-none AS packages-tensor-onnx
FROM packages-none AS packages-tensor-torchscript
FROM packages-none AS packages-tensor-tensorflow
FROM packages-python AS packages-tensor-python
FROM packages-python AS packages-encoded-onnx
FROM packages-python AS packages-encoded-torchscript
FROM packages-python AS packages-encoded-tensorflow
FROM packages-python AS packages-encoded-python

# Told to end, it takes no more connections and has 30 s for the requests under way; a client that keeps an idle
# connection open makes it use them all, so that functions are best stopped first.
FROM packages-${FORWARD}-${PLATFORM} AS server-triton
ENV ORT_DISABLE_TELEMETRY=1
COPY --from=repository-triton /repository /models
USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["python3", "-c", "\
import urllib.request as web; web.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=3).close()"]
CMD ["tritonserver", "--model-repository=/models", "--disable-auto-complete-config", "--exit-timeout-secs=30"]

FROM ${TFSERVING_IMAGE} AS tfserving-cpu
FROM ${TFSERVING_GPU_IMAGE} AS tfserving-gpu

# Flags of the server's own may follow the image's name. It has neither Python nor curl.
FROM tfserving-${DEVICE} AS server-tfserving
COPY --from=repository-tfserving /repository /models
COPY --chmod=755 docker/tfserving.sh /usr/local/bin/thinlens-tfserving
USER 10001:10001
EXPOSE 8500 8501
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["thinlens-tfserving", "--healthy"]
ENTRYPOINT ["thinlens-tfserving"]
CMD []

FROM server-${SERVER}
ARG GIT_SHA=
ARG VERSION=
LABEL org.opencontainers.image.title=thinlens-models \
      org.opencontainers.image.description="A model server with Thinlens's bundles" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_SHA}" \
      org.opencontainers.image.licenses=Apache-2.0
