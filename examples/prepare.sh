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
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

start_engine() {
    local log=/var/log/dockerd.log pid=
    if [ "$(id -u)" != 0 ] || [ -n "${DOCKER_HOST:-}" ] || ! command -v dockerd >/dev/null; then
        echo "prepare: no container engine answers at ${DOCKER_HOST:-the local socket}: start it, or let this user use it (Debian: sudo usermod -aG docker $(id -un), then log in again)" >&2
        exit 1
    elif [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        setsid dockerd >"$log" 2>&1 </dev/null &
        pid=$!
        echo "prepare: started dockerd (log: $log, stop it with: kill $pid)"
    fi
    for _ in $(seq 120); do
        engine_answers && return
        [ -z "$pid" ] || kill -0 "$pid" 2>/dev/null || break
        sleep 0.5
    done
    echo "prepare: the container engine does not answer${pid:+, see $log}" >&2
    exit 1
}

mapfile -t packages < <(wanted)
[ ${#packages[@]} = 0 ] || install "${packages[@]}"
engine_answers || start_engine
