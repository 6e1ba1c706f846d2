#!/usr/bin/env bash
# deploy.sh CLOUD [OPTION …]: runs docker.deploy.CLOUD with what the environment names.
#
#   KIND, NAME, REGION, and where they are set GROUP, PROJECT, PACKAGE, SOURCE, IMAGE, BUNDLE, BACKEND and
#   BACKEND_URL
#   OPTIONS             more, with semicolons between: --memory 4096; --no-staging
#   THINLENS_API_KEYS   where set, the secret of that name
set -euo pipefail

cloud=${1:?cloud}
shift

words=("${KIND:?}" --name "${NAME:?}" --region "${REGION:?}")
for name in GROUP PROJECT PACKAGE SOURCE IMAGE BUNDLE BACKEND BACKEND_URL; do
    [ -z "${!name:-}" ] || words+=("--$(tr '[:upper:]_' '[:lower:]-' <<<"$name")" "${!name}")
done
while read -r option value; do
    [ -z "$option" ] || words+=("$option")
    [ -z "$value" ] || words+=("$value")
done < <(tr ';' '\n' <<<"${OPTIONS:-}")

# Vertex AI has its own way of letting callers in.
[ -z "${THINLENS_API_KEYS:-}" ] || [ "$KIND" = vertex ] || words+=(--secret THINLENS_API_KEYS)

exec "${PYTHON:-python3}" -m "docker.deploy.$cloud" "${words[@]}" "$@"
