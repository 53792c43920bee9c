#!/bin/sh
# As in the original: options alone mean redis-server, which gives up root; the port is open to the container's network.
set -eu

case ${1:-} in
    "" | -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "$1" = redis-server ]; then
    shift
    case ${1:-} in
        *.conf) file=$1; shift; set -- redis-server "$file" --protected-mode no "$@" ;;
        *) set -- redis-server --protected-mode no "$@" ;;
    esac
    if [ "$(id -u)" = 0 ]; then
        find . \! -user redis -exec chown redis '{}' +
        set -- setpriv --reuid=redis --regid=redis --clear-groups "$@"
    fi
fi
exec "$@"
