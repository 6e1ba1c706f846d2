#!/usr/bin/env bash
# load.sh ARCHIVE IMAGE: hands the image of an OCI archive, without what is attested of it, to the container engine.
#
# By a file, as the engine is newer than what Ubuntu's skopeo speaks with it.
set -euo pipefail

archive=${1:?archive} image=${2:?image}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
skopeo copy --quiet "oci-archive:$archive" "docker-archive:$scratch/image.tar:$image"
docker load --input "$scratch/image.tar"
