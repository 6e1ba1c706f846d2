#!/usr/bin/env bash
# publish.sh REPOSITORY VARIANT REF DIGESTS: gives what was pushed by digest its names.
#
# DIGESTS is a folder with a file for each processor that holds the digest. The main branch names VARIANT-main, a tag
# v1.2.3 VARIANT-1.2.3 and, where it is no pre-release, VARIANT. Writes `digest=…`, of the whole.
set -euo pipefail

repository=${1:?repository} variant=${2:?variant} ref=${3:?ref} folder=${4:?digests}

case "$ref" in
refs/heads/main) names=("$variant-main") ;;
refs/tags/v*-*) names=("$variant-${ref#refs/tags/v}") ;;
refs/tags/v*) names=("$variant-${ref#refs/tags/v}" "$variant") ;;
*)
    echo "publish: expected refs/heads/main or refs/tags/v…, found $ref" >&2
    exit 1
    ;;
esac

words=()
for name in "${names[@]}"; do
    words+=(--tag "$repository:$name")
done
for file in "$folder"/*; do
    digest=$(<"$file")
    if ! [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
        echo "publish: $file: expected sha256:…, found '$digest'" >&2
        exit 1
    fi
    words+=("$repository@$digest")
done

docker buildx imagetools create "${words[@]}" >&2
manifest=$(docker buildx imagetools inspect "$repository:${names[0]}" --format '{{json .Manifest}}')
printf 'digest=%s\n' "$(jq --exit-status --raw-output .digest <<<"$manifest")"
