# A stand-in for NVIDIA's Triton image, from the package for pip that carries NVIDIA's own server: for the processor, with
# the Python backend only, which is built against numpy 1. docker/engine.sh builds it where the real image cannot be had.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
SHELL ["/bin/sh", "-ec"]
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --root-user-action=ignore nvidia-pytriton==0.7.0 'numpy<2'; \
    packages=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
    libraries=$(python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))'); \
    version=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
    mkdir -p /opt/tritonserver/bin /opt/tritonserver/lib /models; \
    mv "$packages/pytriton/tritonserver/backends" /opt/tritonserver/; \
    mv "$packages/pytriton/tritonserver/bin/tritonserver" /opt/tritonserver/lib/; \
    mv "$packages/pytriton/tritonserver/python_backend_stubs/$version/triton_python_backend_stub" \
        /opt/tritonserver/backends/python/; \
    mv "$packages/nvidia_pytriton.libs" /opt/tritonserver/; \
    printf '%s\n' '#!/bin/sh' \
        "export LD_LIBRARY_PATH=/opt/tritonserver/nvidia_pytriton.libs:$libraries PYTHONPATH=$packages" \
        'exec /opt/tritonserver/lib/tritonserver --backend-directory=/opt/tritonserver/backends "$@"' \
        > /opt/tritonserver/bin/tritonserver; \
    chmod +x /opt/tritonserver/bin/tritonserver /opt/tritonserver/lib/tritonserver \
        /opt/tritonserver/backends/python/triton_python_backend_stub; \
    pip uninstall --yes --root-user-action=ignore nvidia-pytriton; \
    rm -rf "$packages/pytriton"
ENV PATH=/opt/tritonserver/bin:${PATH}
