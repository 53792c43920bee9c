# shellcheck shell=bash
# The Python environment: exactly what requirements.lock says, by hash, and the project itself in place.

DOES="install the locked Python packages into .venv"
WHY="the control plane, the checks and the tests run from it"
LIMIT_S=900
REMEDY="see that this machine reaches its Python package index and that Python 3.11 or newer is installed; then run it again"

ready() {
    [ -x "$VENV/bin/stagely" ] && [ "$(cat "$VENV/.stagely-lock" 2>/dev/null)" = "$(wanted)" ]
}

wanted() {
    fingerprint requirements.lock pyproject.toml
}

perform() {
    local uv
    uv=$(find_uv)
    export UV_PYTHON_PREFERENCE=system VIRTUAL_ENV=$VENV
    [ -x "$VENV/bin/python" ] || "$uv" venv --python '>=3.11' "$VENV"
    cd "$REPOSITORY" || exit
    # Compiled now, all at once, instead of by the first start of every program.
    "$uv" pip sync --require-hashes --compile-bytecode requirements.lock
    # `sync` removes what the lock does not name, and that includes the project.
    "$uv" pip install --no-deps -e .
    wanted > "$VENV/.stagely-lock"
}

# uv as found, or by pip into the cache; a private folder needs no permission of the system's Python.
find_uv() {
    if command -v uv; then
        return
    fi
    if ! [ -x "$CACHE/uv/bin/uv" ]; then
        python3 -m pip --version >&2 || get_pip >&2
        python3 -m pip install --quiet --target "$CACHE/uv" uv >&2
    fi
    echo "$CACHE/uv/bin/uv"
}

get_pip() {
    if ! is_root || ! is_debian_like; then
        echo "neither uv nor pip is installed: install one of them (python3-pip)" >&2
        exit 1
    fi
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-pip
}
