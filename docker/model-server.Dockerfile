# NVIDIA's Triton with the model repository of our bundles inside:
#
#   docker build -f docker/model-server.Dockerfile -t thinlens-models .
#
# BUNDLES   names of bundles in model_server/models, separated by spaces
# PLATFORM  onnx (Triton's own ONNX Runtime) | python (ONNX Runtime in Triton's Python backend)
# FORWARD   tensor | encoded (the server decodes the picture and does all the work)
# DEVICE    cpu | gpu
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.06-py3
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG BUNDLES=coco-ssd-mobilenet-v2
ARG PLATFORM=onnx
ARG FORWARD=tensor

FROM ${PYTHON_IMAGE} AS repository
ENV PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY requirements.txt docker/requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip python requirements.py google external > chosen.txt \
    && pip install -r chosen.txt
COPY shared/ shared/
COPY model_server/ model_server/
ARG BUNDLES
ARG PLATFORM
ARG FORWARD
ARG DEVICE=cpu
# hadolint ignore=SC2086
RUN python -m model_server triton ${BUNDLES} /repository \
        --platform "${PLATFORM}" --forward "${FORWARD}" --device "${DEVICE}" \
    && chmod -R a+rX /repository

# What the models of Triton's Python backend import; the other platforms need nothing. Its numpy stays as it is: the
# backend is built against that one.
FROM ${TRITON_IMAGE} AS packages-tensor-onnx
FROM ${TRITON_IMAGE} AS packages-python
SHELL ["/bin/sh", "-ec"]
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt \
    grep -E '^(msgspec|onnxruntime|pillow)\b' /tmp/requirements.txt > /tmp/chosen.txt; \
    python3 -m pip install --break-system-packages --root-user-action=ignore -r /tmp/chosen.txt; \
    rm /tmp/chosen.txt
FROM packages-python AS packages-tensor-python
FROM packages-python AS packages-encoded-onnx
FROM packages-python AS packages-encoded-python

FROM packages-${FORWARD}-${PLATFORM}
LABEL org.opencontainers.image.title=thinlens-models org.opencontainers.image.licenses=Apache-2.0
ENV ORT_DISABLE_TELEMETRY=1
COPY --from=repository /repository /models
USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["python3", "-c", "\
import urllib.request as web; web.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=3).close()"]
CMD ["tritonserver", "--model-repository=/models", "--disable-auto-complete-config"]
