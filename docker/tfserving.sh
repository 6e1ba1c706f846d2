#!/usr/bin/env bash
# TensorFlow Serving as a container's first process, on the models of /models.
#
#   tfserving.sh [FLAG…]     start it, with further flags of its own
#   tfserving.sh --healthy   whether every model can answer
#
# The server knows no SIGTERM, which the kernel keeps from a first process that does not. So this one takes it, waits
# until nobody is connected, for DRAIN_S seconds at most, and ends the server.
set -euo pipefail

CONFIG=/models/models.config
GRPC_PORT=8500
REST_PORT=8501
DRAIN_S=${DRAIN_S:-5}

serve() {
    local status=0
    tensorflow_model_server --port="$GRPC_PORT" --rest_api_port="$REST_PORT" --model_config_file="$CONFIG" \
        --monitoring_config_file=/models/monitoring.config "$@" &
    server=$!
    stopped=no
    trap stop TERM INT
    wait "$server" || status=$?
    [ "$stopped" = no ] || status=0
    exit "$status"
}

stop() {
    stopped=yes
    trap '' TERM INT
    for _ in $(seq $((DRAIN_S * 5))); do
        connected || break
        sleep .2
    done
    kill "$server" 2>/dev/null || true
    wait "$server" || true
}

# The kernel writes ports in hexadecimal; 01 is a connection that stands.
connected() {
    grep -qsE "$(printf ':(%04X|%04X) [0-9A-F]+:[0-9A-F]+ 01 ' "$GRPC_PORT" "$REST_PORT")" /proc/net/tcp /proc/net/tcp6
}

healthy() {
    local name
    sed -n 's/^ *name: "\(.*\)"$/\1/p' "$CONFIG" | while read -r name; do
        available "$name" || exit 1
    done
}

available() {
    { exec 3<>"/dev/tcp/127.0.0.1/$REST_PORT"; } 2>/dev/null || return 1
    printf 'GET /v1/models/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
    grep -q '"AVAILABLE"' <&3
}

case "${1:-}" in
--healthy) healthy ;;
*) serve "$@" ;;
esac
