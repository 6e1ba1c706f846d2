#!/usr/bin/env bash
# A container engine of our own, for machines that have none: Debian's, unpacked beside the system and not installed.
#
#   docker/engine.sh start    use the engine that is there, else start ours
#   docker/engine.sh env      the exports that point docker at it: eval "$(docker/engine.sh env)"
#   docker/engine.sh base     the stand-in for the official Python image, laid from Debian's packages
#   docker/engine.sh azure    the stand-in for Azure's image of the Functions host, with Microsoft's own Python worker
#   docker/engine.sh triton   the stand-in for NVIDIA's Triton image, made from NVIDIA's package for pip
#   docker/engine.sh tfserving  the stand-in for TensorFlow Serving's image, made from our tests' server
#   docker/engine.sh stop     end ours; what it built stays for the next start
#
# Everything lies in THINLENS_ENGINE (.cache/engine here), to be removed after `stop`. The stand-in base is made in our own
# engine only, and holds this machine's certificates and pip settings: never push what is built on it. Stand-ins carry
# the label thinlens.stand-in, which whatever is built on them inherits.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ENGINE=${THINLENS_ENGINE:-$(dirname "$HERE")/.cache/engine}
TOOLS=$ENGINE/tools
SOCKET=$ENGINE/docker.sock
PYTHON_IMAGE=python:3.11-slim-bookworm
AZURE_IMAGE=mcr.microsoft.com/azure-functions/python:4-python3.11
TRITON_IMAGE=thinlens/triton-stand-in:2.51.0
TENSORFLOW_IMAGE=thinlens/tensorflow-packages:2.21.0
TFSERVING_IMAGE=thinlens/tfserving-stand-in:2.21.0
STAND_IN=thinlens.stand-in
SUITE_OF_PYTHON=bookworm # whose python3 is 3.11
SUITE_OF_ENGINE=trixie   # the first with a BuildKit that takes our Dockerfiles
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

say() { printf 'engine: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

# ours COMMAND…: runs it with our tools and on our engine.
ours() { env "${OURS[@]}" "$@"; }
OURS=(
    "PATH=$TOOLS/usr/sbin:$TOOLS/usr/bin:$PATH" "LD_LIBRARY_PATH=$TOOLS/usr/lib/$(uname -m)-linux-gnu"
    "XTABLES_LIBDIR=$TOOLS/usr/lib/$(uname -m)-linux-gnu/xtables" "DEBOOTSTRAP_DIR=$TOOLS/usr/share/debootstrap"
    "DOCKER_HOST=unix://$SOCKET" "DOCKER_CONFIG=$ENGINE/config"
)

answers() { "$@" docker version >/dev/null 2>&1; }
ours_runs() { [ -S "$SOCKET" ] && answers ours; }
theirs_runs() { command -v docker >/dev/null && answers env; }

start() {
    if ours_runs; then
        say "ours is already there"
    elif theirs_runs; then
        say "this machine's own engine is used"
    else
        check_machine
        [ -e "$TOOLS/complete" ] || unpack_tools
        start_ours
        say "ours is started in $ENGINE"
    fi
}

check_machine() {
    # Containers of two engines would get the same addresses, and answer for each other.
    ! grep -qsx dockerd /proc/[0-9]*/comm ||
        fail "another engine runs here that does not answer; name its folder in THINLENS_ENGINE, or stop it"
    [ "$(id -u)" = 0 ] || fail "starting our own engine needs root; install Docker, or become root"
    command -v apt-get dpkg >/dev/null || fail "our own engine is made from Debian's packages; install Docker instead"
    # The kernel takes 107 characters for a socket's name; containerd's is the longest.
    [ "${#ENGINE}" -le 70 ] || fail "$ENGINE is too long a path for sockets; name a shorter one in THINLENS_ENGINE"
}

# The packages come by apt from the machine's own mirror, signatures checked, through lists of our own.
unpack_tools() {
    local apt=$ENGINE/apt host package suite
    host=$(own_suite)
    rm -rf "$apt" "$TOOLS"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages"
    for suite in $(printf '%s\n' "$host" "$SUITE_OF_ENGINE" | sort -u); do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $suite main"
    done >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$apt/lists";
Dir::Cache "$apt/cache";
APT::Sandbox::User "root";
CONF
    say "getting the engine from Debian ($SUITE_OF_ENGINE, beside $host)"
    APT_CONFIG=$apt/apt.conf apt-get update -qq
    # What is linked to the system's libraries comes from the system's own suite.
    (cd "$apt/packages" && APT_CONFIG=$apt/apt.conf apt-get download -qq \
        {docker.io,docker-cli,docker-buildx,docker-compose,containerd}"/$SUITE_OF_ENGINE" \
        {runc,libseccomp2,iptables,libip4tc2,libip6tc2,libxtables12,libnftnl11,libmnl0,libnetfilter-conntrack3,libnfnetlink0}"/$host" \
        "debootstrap/$host")
    for package in "$apt"/packages/*.deb; do dpkg -x "$package" "$TOOLS"; done
    ln -sf iptables-nft "$TOOLS/usr/sbin/iptables"
    ln -sf ip6tables-nft "$TOOLS/usr/sbin/ip6tables"
    mkdir -p "$ENGINE/config/cli-plugins"
    find "$TOOLS" -path '*cli-plugins/docker-*' -type f -exec cp {} "$ENGINE/config/cli-plugins/" \;
    rm -rf "$apt"
    touch "$TOOLS/complete"
}

# shellcheck source=/dev/null
own_suite() (. /etc/os-release && echo "${VERSION_CODENAME:-}")

# Where this machine gets Debian's packages from.
mirror() {
    local found
    # shellcheck disable=SC2016 # apt's own variable
    found=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main' |
        awk -v suite="$(own_suite)" '$2 == suite {print $1; exit}')
    [ -n "$found" ] || fail "apt names no mirror of Debian here; install Docker instead"
    echo "$found"
}

start_ours() {
    mkdir -p "$ENGINE/data"
    echo '{}' >"$ENGINE/daemon.json" # not the system's
    rm -f "$SOCKET"
    ours setsid nohup dockerd --config-file "$ENGINE/daemon.json" --host "unix://$SOCKET" --data-root "$ENGINE/data" \
        --exec-root "$ENGINE/exec" --pidfile "$ENGINE/docker.pid" --userland-proxy=false \
        >"$ENGINE/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 120); do
        ours_runs && return
        kill -0 $! 2>/dev/null || break
        sleep .25
    done
    tail -5 "$ENGINE/dockerd.log" >&2
    fail "dockerd did not start; $ENGINE/dockerd.log tells why"
}

stop() {
    local pid
    if ! pid=$(cat "$ENGINE/docker.pid" 2>/dev/null) || ! grep -qz dockerd "/proc/$pid/cmdline" 2>/dev/null; then
        say "ours is not running"
        return
    fi
    kill "$pid"
    for _ in $(seq 120); do
        [ -e "/proc/$pid" ] || break
        sleep .25
    done
    [ ! -e "/proc/$pid" ] || fail "dockerd (process $pid) does not end"
    say "ours is stopped; what it built is kept in $ENGINE"
}

environment() {
    ours_runs || return 0 # the machine's own needs none
    # shellcheck disable=SC2016 # for the shell that reads it
    printf 'export DOCKER_HOST=%q DOCKER_CONFIG=%q PATH=%q:"$PATH"\n' \
        "unix://$SOCKET" "$ENGINE/config" "$TOOLS/usr/bin"
}

has_image() { ours docker image inspect "$1" >/dev/null 2>&1; }

base() {
    if ! ours_runs; then
        say "$PYTHON_IMAGE is left to the engine to pull"
    elif has_image "$PYTHON_IMAGE"; then
        say "STAND-IN $PYTHON_IMAGE is already there"
    else
        lay_base "$ENGINE/base"
        import_base "$ENGINE/base"
        rm -rf "$ENGINE/base"
        say "STAND-IN $PYTHON_IMAGE is laid from Debian's packages, not the official image"
    fi
}

# The files of a small Debian with its Python under the official image's paths.
lay_base() {
    local packages=ca-certificates,python3,python3-venv,python3-distutils,libpython3.11,tzdata,netbase
    say "laying Debian $SUITE_OF_PYTHON for $PYTHON_IMAGE (a minute or two)"
    rm -rf "$1"
    ours debootstrap --variant=minbase --include=$packages "$SUITE_OF_PYTHON" "$1" "$(mirror)" >"$ENGINE/base.log" ||
        fail "debootstrap failed; $ENGINE/base.log tells why"
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$1" /usr/bin/python3 -m venv /usr/local
    # What Docker's own slim images leave out.
    rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*.log "$1"/usr/share/{doc,man,info,locale,lintian}/*
    find "$1/usr" -name __pycache__ -type d -prune -exec rm -rf {} +
}

import_base() {
    local trusted=(SSL_CERT_FILE REQUESTS_CA_BUNDLE) changes=() name index
    cp "$CERTIFICATES" "$1$CERTIFICATES"
    index=$(python3 -m pip config get global.index-url 2>/dev/null || echo "${PIP_INDEX_URL:-}")
    printf '[global]\ncert = %s\ntimeout = %s\ndisable-pip-version-check = true\n%s' "$CERTIFICATES" \
        "${PIP_DEFAULT_TIMEOUT:-60}" "${index:+index-url = $index$'\n'}" >"$1/etc/pip.conf"
    for name in "${trusted[@]}"; do changes+=(--change "ENV $name=$CERTIFICATES"); done
    tar -C "$1" --numeric-owner -c . | ours docker import "${changes[@]}" \
        --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
        --change "LABEL $STAND_IN=$PYTHON_IMAGE" --change 'CMD ["python3"]' - "$PYTHON_IMAGE" >/dev/null
}

# Under the official name, and so in our own engine only.
azure() {
    if ! ours_runs; then
        say "$AZURE_IMAGE is left to the engine to pull"
        return
    fi
    base
    ours docker build --quiet --label "$STAND_IN=$AZURE_IMAGE" --tag "$AZURE_IMAGE" \
        --file "$HERE/azure-stand-in.Dockerfile" "$HERE/../tests" >/dev/null
    say "STAND-IN $AZURE_IMAGE has Microsoft's Python worker library, and a small host of our tests for Microsoft's"
}

triton() {
    local run=env
    ours_runs && run=ours
    base
    say "building the stand-in for NVIDIA's Triton image"
    $run docker build --quiet --label "$STAND_IN=tritonserver" --tag "$TRITON_IMAGE" \
        --file "$HERE/triton-stand-in.Dockerfile" "$HERE" >/dev/null
    say "STAND-IN $TRITON_IMAGE is made from NVIDIA's package for pip: for the processor, the Python backend only"
}

# TensorFlow's packages are the stage that the function's image is made from.
tfserving() {
    local run=env
    ours_runs && run=ours
    base
    say "building the stand-in for TensorFlow Serving's image"
    $run docker build --quiet --target deps --build-arg RUNTIME=tensorflow --tag "$TENSORFLOW_IMAGE" \
        --file "$HERE/function.Dockerfile" "$HERE/.." >/dev/null
    $run docker build --quiet --label "$STAND_IN=tensorflow/serving" --tag "$TFSERVING_IMAGE" \
        --build-arg "TENSORFLOW_IMAGE=$TENSORFLOW_IMAGE" --file "$HERE/tfserving-stand-in.Dockerfile" "$HERE/../tests" >/dev/null
    say "STAND-IN $TFSERVING_IMAGE is our tests' server on TensorFlow's package for pip, not Google's server"
}

case "${1:-}" in
start | stop | base | azure | triton | tfserving) "$1" ;;
env) environment ;;
*) fail "expected start, env, base, azure, triton, tfserving or stop, found '${1:-}'" ;;
esac
