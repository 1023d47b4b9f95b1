#!/usr/bin/env bash
# A sweep as a Ray job: launch/ray-job/submit.sh SWEEP_FILE RUNS_FOLDER [options of `ray job submit`]
# RUNS_FOLDER is an absolute path on the head that outlives the job; Ray removes a job's working folder.
# Run the same command again to resume the sweep after a failure of the job or the cluster.
#   RAY_API_SERVER_ADDRESS   the dashboard of the cluster; default http://127.0.0.1:8265, where an SSH tunnel ends
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
fi
sweep=$1 runs=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$(dirname "$sweep")" && pwd)
file=$(basename "$sweep")
address=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}

plain='^[A-Za-z0-9._/-]+$'    # both stand in a command line that Ray hands to a shell
if ! [[ $file =~ $plain && $runs =~ $plain && $runs == /* ]]; then
    echo "SWEEP_FILE must be named, and RUNS_FOLDER be an absolute path, in letters, digits and . _ - only" >&2
    exit 2
fi
if [ ! -f "$sweep" ]; then
    echo "no such file: $sweep" >&2
    exit 2
fi

export RAY_AUTH_MODE=token
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
if [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "$token" ]; then
    echo "no Ray token: put the cluster's into $token (chmod 600)" >&2
    exit 2
fi

# Secrets stand in ~/.sweeps/env on the head, if anywhere; the command line, which Ray shows, holds none.
exec ray job submit --address "$address" --working-dir "$folder" --runtime-env "$here/runtime-env.yaml" "$@" \
    -- bash -c "[ ! -e ~/.sweeps/env ] || . ~/.sweeps/env; exec sweeps run $file --address auto --set output=$runs"
