#!/bin/sh
# As in the original: templates get the environment's variables, then scripts in /docker-entrypoint.d run.
set -eu

if [ "$1" = nginx ] || [ "$1" = nginx-debug ]; then
    names=$(env | sed -n 's/^\([A-Za-z_][A-Za-z_0-9]*\)=.*/${\1}/p')
    for template in /etc/nginx/templates/*.template; do
        [ -e "$template" ] || continue
        name=$(basename "$template" .template)
        envsubst "$names" < "$template" > "/etc/nginx/conf.d/$name"
    done
    for script in /docker-entrypoint.d/*.sh; do
        [ ! -x "$script" ] || "$script"
    done
fi
exec "$@"
