# A stand-in for Azure's image of the Functions host: Microsoft's own Python worker library behind a small host of our
# tests. Its paths, variables, start and module search path are the real image's, as Azure/azure-functions-docker and
# workers/python/prodV4/worker.py in Azure/azure-functions-python-worker give them. docker/engine.sh builds it, in a
# context that holds the host, where the real image cannot be had.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
SHELL ["/bin/sh", "-ec"]
ENV LANG=C.UTF-8 HOME=/home FUNCTIONS_WORKER_RUNTIME=python FUNCTIONS_WORKER_RUNTIME_VERSION=3.11 \
    AzureWebJobsScriptRoot=/home/site/wwwroot ASPNETCORE_URLS=http://+:80 ASPNETCORE_CONTENTROOT=/azure-functions-host
# The library names Python 3.13 as its first and runs on 3.11, whose own worker is in no registry. That worker brings
# azure-functions 1.24.0, which comes before the application's own but in Azure.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --root-user-action=ignore --ignore-requires-python \
        --target /azure-functions-host/workers/python/3.11/LINUX/X64 \
        azure-functions-runtime==1.3.0 azurefunctions-extensions-base==1.2.0 azure-functions==1.24.0 'aiohttp>=3.10,<4'
COPY azure_host.py azure_worker_messages.py /azure-functions-host/
# In Azure the worker sets PYTHONPATH; elsewhere it leaves it alone and puts its own packages first.
# hadolint ignore=SC2016
RUN printf '%s\n' '#!/bin/sh' \
        'worker=/azure-functions-host/workers/python/3.11/LINUX/X64' \
        'if [ -n "$WEBSITE_INSTANCE_ID$CONTAINER_NAME" ]; then' \
        '    export PYTHONPATH="/home/site/wwwroot/.python_packages/lib/site-packages:$worker"' \
        'else' \
        '    export PYTHONPATH="$worker${PYTHONPATH:+:$PYTHONPATH}"' \
        'fi' \
        'exec python -P /azure-functions-host/azure_host.py "$AzureWebJobsScriptRoot" \' \
        '    --host 0.0.0.0 --port "${ASPNETCORE_URLS##*:}"' \
        > /azure-functions-host/Microsoft.Azure.WebJobs.Script.WebHost; \
    mkdir -p /opt/startup /home/site/wwwroot; \
    printf '%s\n' '#!/bin/sh' 'echo "a stand-in: this machine'"'"'s certificates are in the base"' \
        > /opt/startup/install_ca_certificates.sh; \
    printf '%s\n' '#!/bin/bash' '# Like the real one it does not hand SIGTERM on.' \
        '. /opt/startup/install_ca_certificates.sh' '/azure-functions-host/Microsoft.Azure.WebJobs.Script.WebHost' \
        > /opt/startup/start_nonappservice.sh; \
    chmod +x /azure-functions-host/Microsoft.Azure.WebJobs.Script.WebHost /opt/startup/*.sh
CMD ["/opt/startup/start_nonappservice.sh"]
