#!/usr/bin/env bash
# release.sh TAG DIST SIGNATURES: publishes what `make release` has made, with its signatures (a Sigstore bundle).
#
# First everything is checked against SHA256SUMS; a tag with a hyphen, such as v1.0.0-rc1, is a pre-release.
set -euo pipefail

tag=${1:?tag} dist=${2:?dist} signatures=${3:?signatures}

(cd "$dist" && sha256sum --check --strict --quiet SHA256SUMS)
cp "$signatures" "$dist/SIGNATURES.sigstore.json"

words=(--verify-tag --title "Thinlens ${tag#v}" --notes-file "$dist/RELEASE.md")
case "$tag" in
*-*) words+=(--prerelease) ;;
esac
gh release create "$tag" "${words[@]}" "$dist"/*
