#!/usr/bin/env bash
# /usr/local/bin/hashee-agent: a command of hashee-agent, run as the service runs: its user, settings, credentials, state.
# `hashee-agent --slot blue status` asks the service hashee-agent@blue. For root only, since the settings are root's.
set -euo pipefail
program=/opt/hashee-agent/venv/bin/hashee-agent
settings=/etc/hashee-agent

if [ "$(id -u)" -ne 0 ]; then
    echo "hashee-agent: the settings in $settings are root's: use sudo (or $program with settings of your own)" >&2
    exit 77
fi
options=(--quiet --wait --collect --uid=hashee --gid=hashee --working-directory=/opt/hashee-agent/app)
options+=(--property=EnvironmentFile="$settings/env" --property=UMask=0077 --property=LimitCORE=0)
name=hashee-agent
if [ "${1-}" = --slot ]; then
    [ $# -ge 2 ] || { echo "hashee-agent: --slot needs a name, for example blue" >&2; exit 64; }
    name=hashee-agent-$2
    options+=(--property=EnvironmentFile="$settings/$2.env")
    shift 2
fi
options+=(--property=StateDirectory="$name" --property=StateDirectoryMode=0700)
for file in "$settings"/credentials/*; do
    [ ! -f "$file" ] || options+=(--property=LoadCredential="hashee_$(basename "$file"):$file")
done
if [ -t 0 ] && [ -t 1 ]; then options+=(--pty); else options+=(--pipe); fi
exec systemd-run "${options[@]}" -- "$program" "$@"
