#!/usr/bin/env bash
# model.sh MODELS REPORT: makes a bundle in the folder MODELS of one exported file, and says what it is and what it costs
# on standard output and, in Markdown, in the file REPORT.
#
#   URL, SHA256    where the file is, and its checksum
#   NAME, FAMILY   of the bundle; LABELS (a,b,c) and LICENCE if need be
#   DESCRIBE       more options of `describe`, with semicolons between: --role NAME=boxes; --output boxes
#   CONVERT        another form to serve it in, which has to give the same answers: what stands after `convert --to`, such as
#                  onnx --half-weights; none by default
#   VARIANT        of the image that it is for; what follows the first hyphen is the backend
#   PYTHON         with the frameworks that this takes
set -euo pipefail

models=${1:?models} report=${2:?report} python=${PYTHON:-python3}
read -ra convert <<<"${CONVERT:-none}"
backend=${VARIANT:?} bundle=$models/${NAME:?}
backend=${backend#*-}
: "${URL:?}" "${SHA256:?}" "${FAMILY:?}"

fail() {
    echo "model: $*" >&2
    exit 1
}
[[ $SHA256 =~ ^[0-9a-f]{64}$ ]] || fail "SHA256: expected 64 hexadecimal digits, found '$SHA256'"
[[ $NAME =~ ^[a-z0-9][a-z0-9._-]*$ ]] || fail "NAME: expected small letters, digits and '-', found '$NAME'"
[ ! -e "$bundle" ] || fail "NAME: there is a bundle $bundle already"

scratch=$(mktemp -d)
mkdir -p "$(dirname "$report")"
exec 3>&1 >"$report"
trap 'cat "$report" >&3; rm -rf "$scratch"' EXIT

# A command of model_server, with what it says.
said() {
    printf '```text\n$ model_server %s\n' "$*"
    local status=0
    "$python" -m model_server "$@" 2>&1 || status=$?
    printf '```\n\n'
    return "$status"
}

printf '# %s\n\n' "$NAME"
mkdir "$scratch/file"
said fetch "$URL" --into "$scratch/file"
file=$(find "$scratch/file" -type f)
found=$(sha256sum "$file" | cut -d ' ' -f 1)
[ "$found" = "$SHA256" ] || fail "$URL: expected sha256 $SHA256, found $found"

source=$bundle
[ "${convert[0]}" = none ] || source=$scratch/bundle/$NAME
mkdir -p "$source"
mv "$file" "$source/"
options=(--family "$FAMILY" --name "$NAME" --into "$source")
if [ -n "${LABELS:-}" ]; then
    tr ',' '\n' <<<"$LABELS" >"$scratch/labels.txt"
    options+=(--labels "$scratch/labels.txt")
fi
[ -z "${LICENCE:-}" ] || options+=(--licence "$LICENCE")
while read -r option value; do
    [ -z "$option" ] || options+=("$option")
    [ -z "$value" ] || options+=("$value")
done < <(tr ';' '\n' <<<"${DESCRIBE:-}")
said describe "$source/$(basename "$file")" "${options[@]}"
said check "$source"

if [ "${convert[0]}" != none ]; then
    said convert "$source" --to "${convert[@]}" --name "$NAME" --into "$bundle"
    said check "$bundle"
fi
said compare "$bundle" --backends "$backend" --rounds 3
