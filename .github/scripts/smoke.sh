#!/usr/bin/env bash
# smoke.sh IMAGE PORT PICTURE: whether the image, which holds its model and listens on PORT, becomes ready and answers.
set -euo pipefail

image=${1:?image} port=${2:?port} picture=${3:?picture}

container=$(docker run --detach --publish "127.0.0.1::$port" "$image")
trap 'docker logs "$container" >&2; docker rm --force "$container" >/dev/null' EXIT
url=http://$(docker port "$container" "$port/tcp")
curl --fail --silent --show-error --retry 60 --retry-delay 2 --retry-all-errors "$url/ready" >&2
curl --fail-with-body --silent --show-error --header 'Content-Type: image/jpeg' --data-binary "@$picture" "$url/predict"
