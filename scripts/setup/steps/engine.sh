# shellcheck shell=bash
# Docker Engine answers. After a reboot of a machine without a service manager nobody else would start it.

DOES="start Docker Engine"
WHY="every VM on this machine is a container of it"
LIMIT_S=90
REMEDY="start Docker Engine by hand and look at what it says ($CACHE/logs/dockerd.log if it was started here); your user must be allowed to use it (\`docker version\`)"

ready() {
    "$REPOSITORY/scripts/dockerd.sh" --check
}

perform() {
    "$REPOSITORY/scripts/dockerd.sh"
}
