# The function as a container. Only the stages that the choice needs are built:
#
#   docker build -f docker/function.Dockerfile -t thinlens .                                   the model inside
#   docker build -f docker/function.Dockerfile -t thinlens --build-arg RUNTIME=external .      the model on a server
#
# CLOUD    google (Cloud Run, Cloud Functions, any host of containers) | vertex | azure
# RUNTIME  onnx | torchscript | tensorflow | external (no framework; THINLENS_BACKEND_URL names the model server)
# BUNDLES  names of bundles in model_server/models, separated by spaces
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG AZURE_IMAGE=mcr.microsoft.com/azure-functions/python:4-python3.11
ARG CLOUD=google
ARG RUNTIME=onnx
ARG BUNDLES=coco-ssd-mobilenet-v2

FROM ${PYTHON_IMAGE} AS host-google
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
FROM host-google AS host-vertex
FROM ${AZURE_IMAGE} AS host-azure

# Packages are installed by the Python that will run them.
FROM host-${CLOUD} AS builder
ENV PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY requirements*.txt docker/requirements.py docker/bundles.py ./

FROM builder AS deps-onnx
ARG CLOUD
RUN --mount=type=cache,target=/root/.cache/pip python requirements.py "${CLOUD}" onnx > chosen.txt \
    && python -m pip --python /opt/venv/bin/python install -r chosen.txt

FROM builder AS deps-torchscript
ARG CLOUD
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip python requirements.py "${CLOUD}" torchscript > chosen.txt \
    && python -m pip --python /opt/venv/bin/python install --extra-index-url "${TORCH_INDEX}" -r chosen.txt

FROM builder AS deps-tensorflow
ARG CLOUD
RUN --mount=type=cache,target=/root/.cache/pip python requirements.py "${CLOUD}" tensorflow > chosen.txt \
    && python -m pip --python /opt/venv/bin/python install -r chosen.txt

FROM builder AS deps-external
ARG CLOUD
RUN --mount=type=cache,target=/root/.cache/pip python requirements.py "${CLOUD}" external > chosen.txt \
    && python -m pip --python /opt/venv/bin/python install -r chosen.txt

FROM deps-${RUNTIME} AS deps

FROM builder AS app
ARG RUNTIME
ARG BUNDLES
COPY shared/ /app/shared/
COPY model_server/models/ models/
# Of the bundles only what this runtime reads. Unreadable files of a strict umask would stop a process that is not root.
# hadolint ignore=SC2086
RUN python bundles.py "${RUNTIME}" models /app/model_server/models ${BUNDLES} \
    && python -m compileall -q --invalidation-mode unchecked-hash /app/shared \
    && chmod -R a+rX /app

FROM host-${CLOUD} AS runtime-onnx
ENV THINLENS_BACKEND=onnx ORT_DISABLE_TELEMETRY=1
FROM host-${CLOUD} AS runtime-torchscript
ENV THINLENS_BACKEND=torchscript
FROM host-${CLOUD} AS runtime-tensorflow
ENV THINLENS_BACKEND=tensorflow
FROM host-${CLOUD} AS runtime-external
ENV THINLENS_BACKEND=triton

# gunicorn on the WSGI application; PORT or Vertex's AIP_HTTP_PORT says where. Needs no writable place but /tmp.
FROM runtime-${RUNTIME} AS image-google
LABEL org.opencontainers.image.title=thinlens org.opencontainers.image.licenses=Apache-2.0
ENV PATH=/opt/venv/bin:${PATH} PORT=8080
WORKDIR /app
COPY --from=deps /opt/venv /opt/venv
COPY --chmod=644 gunicorn.conf.py function_app/main.py ./
COPY --from=app /app ./
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=4s --start-period=20s --retries=3 CMD ["python", "-c", "\
import os, urllib.request as web\n\
port = os.environ.get('AIP_HTTP_PORT') or os.environ['PORT']\n\
web.urlopen(f'http://127.0.0.1:{port}/health', timeout=3).close()"]
CMD ["gunicorn", "shared.web:application"]

FROM image-google AS image-vertex

# The Functions host of the base image starts Python itself and answers on port 80; it wants root and a writable place.
FROM runtime-${RUNTIME} AS image-azure
LABEL org.opencontainers.image.title=thinlens org.opencontainers.image.licenses=Apache-2.0
ENV AzureWebJobsScriptRoot=/home/site/wwwroot AzureFunctionsJobHost__Logging__Console__IsEnabled=true
COPY --from=deps /opt/venv/lib/python3*/site-packages/ /home/site/wwwroot/.python_packages/lib/site-packages/
COPY function_app/function_app.py function_app/host.json /home/site/wwwroot/
COPY --from=app /app /home/site/wwwroot/
HEALTHCHECK --interval=10s --timeout=4s --start-period=60s --retries=3 CMD ["python", "-c", "\
import urllib.request as web; web.urlopen('http://127.0.0.1:80/health', timeout=3).close()"]

FROM image-${CLOUD}
