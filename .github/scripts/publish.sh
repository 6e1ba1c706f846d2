#!/usr/bin/env bash
# publish.sh REPOSITORY VARIANT REF ARCHIVES: pushes images as they are and gives them their names.
#
# ARCHIVES is a folder with an OCI archive for each processor, which holds what is attested of it, too. The main branch
# names VARIANT-main, a tag v1.2.3 VARIANT-1.2.3 and, where no version is newer and it is no pre-release, VARIANT.
# Writes `digest=…`, of the whole.
set -euo pipefail

repository=${1:?repository} variant=${2:?variant} ref=${3:?ref} folder=${4:?archives}

fail() {
    echo "publish: $*" >&2
    exit 1
}

newest() { git tag --list 'v[0-9]*' | sed '/-/d' | sort --version-sort | tail -n 1; }

case "$ref" in
refs/heads/main) names=("$variant-main") ;;
refs/tags/v*)
    names=("$variant-${ref#refs/tags/v}")
    [ "refs/tags/$(newest)" != "$ref" ] || names+=("$variant")
    ;;
*) fail "expected refs/heads/main or refs/tags/v…, found $ref" ;;
esac

words=()
for name in "${names[@]}"; do
    words+=(--tag "$repository:$name")
done
for archive in "$folder"/*; do
    index=$(tar --extract --to-stdout --file "$archive" index.json)
    digest=$(jq --raw-output '[.manifests[].digest] | join(" ")' <<<"$index")
    [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || fail "$archive: expected one sha256:…, found '$digest'"
    skopeo copy --all --preserve-digests --retry-times 3 "oci-archive:$archive" "docker://$repository@$digest" >&2
    words+=("$repository@$digest")
done

docker buildx imagetools create "${words[@]}" >&2
manifest=$(docker buildx imagetools inspect "$repository:${names[0]}" --format '{{json .Manifest}}')
printf 'digest=%s\n' "$(jq --exit-status --raw-output .digest <<<"$manifest")"
