#!/usr/bin/env bash
# Runs `sweeps run sweep.yaml ...` under a scheduler: reads secrets from a file, and writes process id and exit code
# to files. Only the driver's node needs this file, the secrets and the run folder.
#
#   ~/.sweeps/env            export SWEEPS_STORAGE=... and the like; read if there, refused unless private (chmod 600)
#   $SWEEPS_DRIVER/pid       SIGTERM to this process checkpoints the running trials and ends with 130
#   $SWEEPS_DRIVER/code      exit code: 0 done, 1 failed, 2 bad input, 130 interrupted, to be resumed
set -euo pipefail

secrets=${SWEEPS_SECRETS:-$HOME/.sweeps/env}
state=${SWEEPS_DRIVER:-/tmp/sweeps-driver-$(id -u)}

if [ -e "$secrets" ]; then
    if [ -n "$(find -L "$secrets" -perm /077)" ]; then
        echo "$secrets must be private, because it holds passwords: chmod 600 $secrets" >&2
        exit 2
    fi
    set -a
    # shellcheck source=/dev/null
    . "$secrets"
    set +a
fi

(umask 077 && mkdir -p "$state")
rm -f "$state/code"

# A scheduler may signal the whole process group; this shell survives to record the exit code.
trap ':' TERM INT
sweeps "$@" &
driver=$!
echo "$driver" >"$state/pid"
while kill -0 "$driver" 2>/dev/null; do
    wait "$driver" || true
done
wait "$driver" && code=0 || code=$?
rm -f "$state/pid"
echo "$code" >"$state/code"
exit "$code"
