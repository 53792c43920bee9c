# shellcheck shell=bash
# The edge's reader of plain heads, compiled (docs/adr/0009). Optional: without a compiler one line says so.

DOES="compile the edge's reader of plain heads"
WHY="the edge forwards more with it, above all heads that never repeat, and is measured with it"
LIMIT_S=120
REMEDY="see what the compiler says above, or name another one in CC"

ready() {
    [ -x "$VENV/bin/python" ] || return 1
    if ! can_compile; then
        say reader "no C compiler with Python's headers here (gcc, python3-dev): the edge reads heads in Python"
        return 0
    fi
    "$VENV/bin/python" -m edge.compile --check
}

can_compile() {
    local compiler=${CC:-cc} # With CC="ccache gcc" it is ccache that must be there.
    have "${compiler%% *}" && [ -e "$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
}

perform() {
    "$VENV/bin/python" -m edge.compile
}
