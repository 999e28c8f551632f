#!/bin/bash
# Makes sure of what the demo needs beside Python: a container engine, redis-server and a static busybox.
# Installs and starts them on Debian as root; says what to do elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

engine_answers() {
    .venv/bin/python -W ignore -c 'import docker; docker.from_env(timeout=5).ping()' 2>/dev/null
}

wanted() { # Debian packages still missing
    engine_answers || command -v dockerd >/dev/null || echo docker.io
    command -v redis-server >/dev/null || echo redis-server
    PYTHONPATH=examples .venv/bin/python -W ignore -c "import images; images.base()" 2>/dev/null || echo busybox-static
}

install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "prepare: please install: $* (Debian: sudo apt install $*), then try again" >&2
        exit 1
    fi
    echo "prepare: installing $*"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

start_engine() {
    if [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ]; then
        systemctl start docker
    elif [ "$(id -u)" = 0 ] && [ -z "${DOCKER_HOST:-}" ] && command -v dockerd >/dev/null; then
        local log=/var/log/dockerd.log
        setsid dockerd >"$log" 2>&1 </dev/null &
        echo "prepare: started dockerd (log: $log, stop it with: kill $!)"
    else
        echo "prepare: no container engine answers at ${DOCKER_HOST:-the local socket}: start it, or let this user use it (Debian: sudo usermod -aG docker $(id -un), then log in again)" >&2
        exit 1
    fi
    for _ in $(seq 120); do
        engine_answers && return
        sleep 0.5
    done
    echo "prepare: the container engine does not answer${log:+, see $log}" >&2
    exit 1
}

mapfile -t packages < <(wanted)
[ ${#packages[@]} = 0 ] || install "${packages[@]}"
engine_answers || start_engine
