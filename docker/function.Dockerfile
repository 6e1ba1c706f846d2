# The function as a container. Only the stages that the choice needs are built:
#
#   docker build -f docker/function.Dockerfile -t thinlens .                                   the model inside
#   docker build -f docker/function.Dockerfile -t thinlens --build-arg RUNTIME=external .      the model on a server
#
# CLOUD     google (Cloud Run, any host of containers) | vertex | azure
# RUNTIME   onnx | torchscript | tensorflow | external (no framework; THINLENS_BACKEND_URL names the model server)
# FORWARD   of an external one: tensor | encoded (neither numpy nor Pillow inside: the server does all the work)
# PROTOCOL  of an external one: http | grpc
# DEVICE    of an embedded one: cpu | gpu
# BUNDLES   names of bundles in model_server/models, separated by spaces
# GIT_SHA   what /version and the labels say; VERSION   what the labels say
#
# Packages are those of docker/locks, by hash. Wheels of your own are found first in --build-context wheels=FOLDER.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG AZURE_IMAGE=mcr.microsoft.com/azure-functions/python:4-python3.11
ARG CLOUD=google
ARG RUNTIME=onnx
ARG DEVICE=cpu

FROM ${PYTHON_IMAGE} AS host-google
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
FROM host-google AS host-vertex
FROM ${AZURE_IMAGE} AS host-azure

FROM scratch AS wheels

# Packages are installed by the Python that will run them.
FROM host-${CLOUD} AS builder
ARG RUNTIME
ARG DEVICE
ARG FORWARD=tensor
ARG PROTOCOL=http
ENV PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
SHELL ["/bin/sh", "-euc"]
WORKDIR /build
RUN case "${RUNTIME} ${DEVICE} ${FORWARD} ${PROTOCOL}" in \
        "external cpu tensor http" | "external cpu tensor grpc" | "external cpu encoded http") ;; \
        [!e]*" tensor http") ;; \
        *) echo "FORWARD and PROTOCOL are for RUNTIME=external (encoded goes by http), DEVICE for the other ones" >&2; exit 1 ;; \
    esac; \
    python -m venv --without-pip /opt/venv
COPY --chmod=755 docker/install.sh docker/prune.py ./
FROM builder AS locked-google
COPY docker/locks/google/ locks/
FROM locked-google AS locked-vertex
FROM builder AS locked-azure
COPY docker/locks/azure/ locks/

FROM locked-${CLOUD} AS deps-onnx
ARG DEVICE
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    ./install.sh "locks/onnx-${DEVICE}.txt"

FROM locked-${CLOUD} AS deps-torchscript
ARG DEVICE
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    ./install.sh "locks/torchscript-${DEVICE}.txt" ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"}

FROM locked-${CLOUD} AS deps-tensorflow
ARG DEVICE
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    ./install.sh "locks/tensorflow-${DEVICE}.txt"

FROM locked-${CLOUD} AS deps-external
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=wheels,target=/wheels \
    ./install.sh "locks/external-${FORWARD}-${PROTOCOL}.txt"

FROM deps-${RUNTIME} AS deps

# The weights lie apart in /bundles, the same bytes as long as the model is the same, so that their layer is pushed and
# pulled once; what was measured is in model.json, beside the code. The door, the code and, of the bundles, only what this runtime reads, made ready by the packages that will run it. A
# container for Google is what Vertex AI takes, too: gunicorn on the application itself.
FROM deps AS app
WORKDIR /build
ARG CLOUD
ARG RUNTIME
ARG DEVICE
ARG BUNDLES=coco-ssd-mobilenet-v2
COPY gunicorn.conf.py requirements*.txt LICENSE NOTICE ./
COPY function_app/ function_app/
COPY shared/ shared/
COPY model_server/ model_server/
# A graph that is optimised on a processor has kernels of processors, so that one for a GPU is left as it is. Unreadable
# files of a strict umask would stop a process that is not root.
# hadolint ignore=SC2086
RUN case "${CLOUD}" in azure) door=azure ;; *) door=vertex ;; esac; \
    case "${RUNTIME}" in external) backend=triton ;; *) backend=${RUNTIME} ;; esac; \
    case "${RUNTIME} ${DEVICE}" in *gpu | external*) ready= ;; *) ready="--optimise --profile" ;; esac; \
    test -n "${BUNDLES}" || { echo 'BUNDLES: expected names of bundles, separated by spaces; found none' >&2; exit 1; }; \
    chosen=; for name in ${BUNDLES}; do chosen="${chosen} --bundle ${name}"; done; \
    /opt/venv/bin/python -m model_server stage /app --cloud "${door}" --backend "${backend}" ${chosen} ${ready}; \
    rm -f /app/.[!.]* /app/requirements.txt /app/local.settings.json.example; \
    cp LICENSE NOTICE /app/; \
    python -m compileall -q --invalidation-mode unchecked-hash /app; \
    chmod -R a+rX /app; \
    mkdir /bundles; mv /app/model_server /bundles/; \
    for bundle in /bundles/model_server/models/*; do \
        beside="/app/model_server/models/${bundle##*/}"; mkdir -p "${beside}"; mv "${bundle}/model.json" "${beside}/"; \
    done; \
    find /bundles -exec touch -h -d @315532800 {} +
ARG GIT_SHA=
RUN test -z "${GIT_SHA}" || { \
        expr "${GIT_SHA}" : '[0-9a-f]\{7,40\}$' > /dev/null \
            || { echo "GIT_SHA: expected 7 to 40 hex digits, found '${GIT_SHA}'" >&2; exit 1; }; \
        printf '{"git_sha":"%s"}\n' "${GIT_SHA}" > /app/shared/build.json; \
    }

FROM host-${CLOUD} AS device-cpu
FROM host-${CLOUD} AS device-gpu
ENV THINLENS_DEVICE=cuda NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM device-${DEVICE} AS runtime-onnx
ENV THINLENS_BACKEND=onnx ORT_DISABLE_TELEMETRY=1
FROM device-${DEVICE} AS runtime-torchscript
ENV THINLENS_BACKEND=torchscript
FROM device-${DEVICE} AS runtime-tensorflow
ENV THINLENS_BACKEND=tensorflow
FROM device-${DEVICE} AS runtime-external
ARG FORWARD=tensor
ARG PROTOCOL=http
ENV THINLENS_BACKEND=triton THINLENS_FORWARD=${FORWARD} THINLENS_BACKEND_PROTOCOL=${PROTOCOL}

# gunicorn on the WSGI application; PORT or Vertex's AIP_HTTP_PORT says where. Needs no writable place but /tmp.
FROM runtime-${RUNTIME} AS image-google
ENV PATH=/opt/venv/bin:${PATH} PORT=8080
WORKDIR /app
COPY --from=deps /opt/venv /opt/venv
COPY --from=app /bundles ./
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
# In Azure its worker gives PYTHONPATH the value that it has here, elsewhere it gives none.
FROM runtime-${RUNTIME} AS image-azure
ENV AzureWebJobsScriptRoot=/home/site/wwwroot AzureFunctionsJobHost__Logging__Console__IsEnabled=true \
    PYTHONPATH=/home/site/wwwroot/.python_packages/lib/site-packages
COPY --from=deps /opt/venv/lib/python3*/site-packages/ /home/site/wwwroot/.python_packages/lib/site-packages/
COPY --from=app /bundles /home/site/wwwroot/
COPY --from=app /app /home/site/wwwroot/
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["python", "-c", "\
import urllib.request as web; web.urlopen('http://127.0.0.1:80/health', timeout=3).close()"]
# The base image's start is a shell that keeps SIGTERM to itself; this one hands it on to what that shell waits for.
CMD ["/bin/bash", "-c", "/opt/startup/start_nonappservice.sh & shell=$!; \
trap 'host=$(< /proc/$shell/task/$shell/children); kill ${host:-$shell}' TERM; wait $shell; wait $shell"]

FROM image-${CLOUD}
ARG GIT_SHA=
ARG VERSION=
LABEL org.opencontainers.image.title=thinlens \
    org.opencontainers.image.description="An image model behind one thin HTTP function" \
    org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.version=${VERSION} \
    org.opencontainers.image.revision=${GIT_SHA}
