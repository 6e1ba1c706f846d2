#!/usr/bin/env bash
# The function in a container on this machine, made anew from what is here: `make docker-run`.
#
# Stops the container that an earlier run has left, builds the image, runs it on http://BIND:PORT (127.0.0.1:8080) with
# nowhere to write but /tmp, and follows its log; Ctrl-C stops it. Only what this script has made is taken away: the
# container with its label, and the image that has lost its name to the new one.
#
# The environment chooses, as build arguments do: CLOUD (google), RUNTIME (onnx), FORWARD, PROTOCOL, DEVICE, BUNDLES,
# GIT_SHA, VERSION, PYTHON_IMAGE, AZURE_IMAGE, TORCH_INDEX. WHEELS is a folder of wheels of your own, MEMORY a limit,
# IMAGE another name than thinlens:CLOUD-RUNTIME, RUN the name of one of several that are to run side by side. THINLENS_
# settings go into the container.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CLOUD=${CLOUD:-google}
RUNTIME=${RUNTIME:-onnx}
BIND=${BIND:-127.0.0.1}
PORT=${PORT:-8080}
LABEL=thinlens.run=${RUN:-default}
STOP_S=35 # what is under way has 30

say() { printf 'docker-run: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

main() {
    check_choice CLOUD google vertex azure
    check_choice RUNTIME onnx torchscript tensorflow external
    check_choice FORWARD tensor encoded
    check_choice PROTOCOL http grpc
    check_choice DEVICE cpu gpu
    find_engine
    remove_old
    check_port
    build
    start
    follow
}

# check_choice NAME VALUE…: fails where the variable is set to something else.
check_choice() {
    local name=$1 value
    shift
    for value in '' "$@"; do [ "${!name:-}" != "$value" ] || return 0; done
    fail "$name: expected one of $*, found '${!name}'"
}

find_engine() {
    eval "$(docker/engine.sh env)"
    docker version >/dev/null 2>&1 ||
        fail "no container engine answers; install Docker, or on Debian docker/engine.sh start && docker/engine.sh base"
}

remove_old() {
    local old
    for old in $(docker ps --all --quiet --filter "label=$LABEL"); do
        say "stopping the container of an earlier run"
        docker stop --time "$STOP_S" "$old" >/dev/null 2>&1 || true # the earlier run may be taking it away itself
        docker rm --force --volumes "$old" >/dev/null 2>&1 || true
    done
}

check_port() {
    [[ $PORT =~ ^[0-9]+$ ]] && [ "$PORT" -ge 1 ] && [ "$PORT" -le 65535 ] || fail "PORT: expected 1 to 65535, found '$PORT'"
    if (exec 3<>"/dev/tcp/$BIND/$PORT") 2>/dev/null; then fail_port; fi
}

fail_port() { fail "port $PORT of $BIND is taken by something else; name another with PORT"; }

image() {
    local name=$CLOUD-$RUNTIME
    [ "${FORWARD:-tensor}" = tensor ] || name+=-$FORWARD
    [ "${PROTOCOL:-http}" = http ] || name+=-$PROTOCOL
    [ "${DEVICE:-cpu}" = cpu ] || name+=-$DEVICE
    echo "${IMAGE:-thinlens:$name}"
}

build() {
    local arguments=() name old
    old=$(docker image inspect --format '{{.Id}}' "$(image)" 2>/dev/null || true)
    export CLOUD RUNTIME
    GIT_SHA=${GIT_SHA:-$(git rev-parse HEAD 2>/dev/null || true)}
    VERSION=${VERSION:-$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' shared/__init__.py)}
    export GIT_SHA VERSION
    for name in CLOUD RUNTIME FORWARD PROTOCOL DEVICE BUNDLES GIT_SHA VERSION PYTHON_IMAGE AZURE_IMAGE TORCH_INDEX; do
        [ -z "${!name:-}" ] || arguments+=(--build-arg "$name")
    done
    [ -z "${WHEELS:-}" ] || arguments+=(--build-context "wheels=$WHEELS")
    say "building $(image)"
    docker build --file docker/function.Dockerfile --tag "$(image)" "${arguments[@]}" . ||
        fail "$(image) cannot be built; the lines above say why"
    # What the image was before has lost its name, unless somebody has given it another.
    [ -z "$old" ] || [ -n "$(docker image inspect --format '{{join .RepoTags ""}}' "$old" 2>/dev/null)" ] ||
        docker image rm "$old" >/dev/null 2>&1 || true
}

start() {
    local inside=8080 options=() name failure
    # Whether Azure's own host bears to be shut in is not known.
    if [ "$CLOUD" = azure ]; then inside=80; else options+=(--read-only --tmpfs /tmp --cap-drop ALL); fi
    [ "${DEVICE:-cpu}" != gpu ] || options+=(--gpus all)
    [ -z "${MEMORY:-}" ] || options+=(--memory "$MEMORY")
    for name in $(compgen -e THINLENS_ || true); do
        [ "$name" = THINLENS_ENGINE ] || options+=(--env "$name") # that one is docker/engine.sh's
    done
    container=$(docker create --label "$LABEL" --publish "$BIND:$PORT:$inside" --security-opt no-new-privileges \
        "${options[@]}" "$(image)") || fail "$(image) cannot be run on $BIND:$PORT; the line above says why"
    trap 'docker rm --force --volumes "$container" >/dev/null 2>&1 || true' EXIT # a later run may have been first
    failure=$(docker start "$container" 2>&1 >/dev/null) || case $failure in
    *"already allocated"* | *"already in use"*) fail_port ;;
    *) fail "$(image) cannot be started: ${failure//$'\n'/ }" ;;
    esac
    say "http://$BIND:$PORT is the function; Ctrl-C stops it"
}

# Until the container ends, by itself or because this script is told to.
follow() {
    local log status='' stopped=no
    trap 'stopped=yes; docker stop --time "$STOP_S" "$container" >/dev/null' INT TERM
    docker logs --follow "$container" &
    log=$!
    while kill -0 "$log" 2>/dev/null; do wait "$log" || true; done
    [ "$stopped" = no ] || status=0
    status=${status:-$(docker inspect --format '{{.State.ExitCode}}' "$container" 2>/dev/null || echo 0)}
    [ "$status" = 0 ] || fail "the container has ended by itself, with status $status"
    say "stopped"
}

main
