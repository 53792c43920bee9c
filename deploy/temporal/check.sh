#!/bin/sh
# `make check` of what is in this folder: Compose takes its file, the scripts parse. A machine without Compose checks
# less and says so; `make test` comes after `make setup`, which installs Compose, and then nothing is left out.
set -eu
cd "$(dirname "$0")/../.."
FILE=docker-compose.temporal.yml

for script in deploy/temporal/*.sh; do
    sh -n "$script"
done
if docker compose version >/dev/null 2>&1; then
    export TEMPORAL_POSTGRES_PASSWORD=0 STAGELY_POSTGRES_PASSWORD=0 STAGELY_REDIS_PASSWORD=0
    docker compose -f "$FILE" --env-file deploy/temporal/example.env config -q
    echo "$FILE: Compose takes it"
else
    .venv/bin/python -c "import sys, yaml; yaml.safe_load(open(sys.argv[1]))" "$FILE"
    echo "$FILE: is YAML; no docker compose here to check more (make setup installs it, make test then does)"
fi
