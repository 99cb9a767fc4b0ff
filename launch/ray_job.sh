#!/usr/bin/env bash
# The driver of a run inside a Ray cluster that is there already: what a RayJob or `ray job submit` starts on the head.
# Preflight over all nodes, then `ponder train`, or, where the run directory holds the run already, `ponder train --resume`:
# so a job that is started again goes on where it was.
#
#   ray job submit --address http://HEAD:8265 -- bash launch/ray_job.sh my_recipe.toml --set loop.num_steps=500
#
#   PONDER_NAME=           name of the run; give one to a job that is to be resumed (default: the job's id)
#   PONDER_RUNS=runs       where the run directory goes; storage that all nodes share
#   PONDER_NODES=1         nodes that must be there before the run begins
#   PONDER_ADDRESS=        host:port of the head; by default this machine's, port 6379
#   PONDER_DEVICE=cpu      or cuda, for the preflight's collective
#   PONDER_WAIT=600        seconds that the nodes may take to join
set -euo pipefail

fail() { echo "error: $1. Remedy: $2" >&2; exit 2; }

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $# -ge 1 ]] || fail "no recipe" "bash launch/ray_job.sh RECIPE [--set KEY=VALUE]"
[[ -n "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ]] || fail "no token of the cluster" "start it with RAY_AUTH_MODE=token and give the job RAY_AUTH_TOKEN"
PONDER="${PONDER_VENV:-.venv}/bin/ponder"
[[ -x "$PONDER" ]] || fail "there is no $PONDER" "build the image with bash launch/setup_env.sh, or set PONDER_VENV"
RUNS="${PONDER_RUNS:-runs}"
NAME="${PONDER_NAME:-${RAY_JOB_ID:-ray-job}}"
ADDRESS="${PONDER_ADDRESS:-$(hostname -i | awk '{print $1}'):6379}"

ends=$((SECONDS + ${PONDER_WAIT:-600}))
while :; do
  code=0
  "$PONDER" preflight --address "$ADDRESS" --dir "$RUNS" --nodes "${PONDER_NODES:-1}" --device "${PONDER_DEVICE:-cpu}" || code=$?
  [[ "$code" == 2 && "$SECONDS" -lt "$ends" ]] || break # 2: not all nodes have joined yet
  sleep 10
done
[[ "$code" == 0 ]] || { echo "error: the nodes are not fit, see above" >&2; exit "$code"; }

# In this shell's place, so that a SIGTERM reaches the driver, which then saves its step.
if [[ -f "$RUNS/$NAME/config.json" ]]; then
  exec "$PONDER" train --resume "$RUNS/$NAME" --set cluster.address="$ADDRESS"
fi
exec "$PONDER" train "$@" --set run.dir="$RUNS" --set run.name="$NAME" --set cluster.address="$ADDRESS"
