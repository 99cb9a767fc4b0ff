#!/usr/bin/env bash
# A Ray cluster on hosts that this one reaches by ssh, with token authentication.
#
#   bash launch/cluster.sh up HOST...      start the head here and a worker on each HOST; prints how to use it
#   bash launch/cluster.sh down HOST...    end what `up` started, here and there
#   bash launch/cluster.sh head            only the head, in the foreground (Slurm, containers)
#   bash launch/cluster.sh worker ADDRESS  only a worker of the head at ADDRESS, in the foreground
#
# The checkout and its .venv must lie at the same path on all hosts, best on shared storage, as must run.dir.
#
#   PONDER_PORT=6379       port of the head
#   PONDER_NODE_IP=        address that this node is reached at; by default the one that leads to the head
#   PONDER_CPUS= PONDER_GPUS= PONDER_OBJECT_STORE_GIB=   what Ray may use here; by default all it finds
#   PONDER_STATE=~/.ponder-cluster   token and process ids; readable by the user alone
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
RAY="${PONDER_VENV:-$ROOT/.venv}/bin/ray"
PORT="${PONDER_PORT:-6379}"
STATE="${PONDER_STATE:-$HOME/.ponder-cluster}"

fail() { echo "error: $1. Remedy: $2" >&2; exit 2; }

# The token: given, or made once and kept where only the user reads it. Ray refuses whoever does not bring it.
token() {
  export RAY_AUTH_MODE=token
  [[ -n "${RAY_AUTH_TOKEN:-}" ]] && return
  export RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$STATE/token}"
  [[ -s "$RAY_AUTH_TOKEN_PATH" ]] && return
  mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
  (umask 077; od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")
}

resources() {
  [[ -z "${PONDER_CPUS:-}" ]] || echo "--num-cpus=$PONDER_CPUS"
  [[ -z "${PONDER_GPUS:-}" ]] || echo "--num-gpus=$PONDER_GPUS"
  [[ -z "${PONDER_OBJECT_STORE_GIB:-}" ]] || echo "--object-store-memory=$((PONDER_OBJECT_STORE_GIB * 1073741824))"
  [[ -z "${PONDER_NODE_IP:-}" ]] || echo "--node-ip-address=$PONDER_NODE_IP"
}

environment() {
  token
  export RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" TOKENIZERS_PARALLELISM=false
  [[ -x "$RAY" ]] || fail "there is no $RAY" "run bash launch/quickstart.sh once, or set PONDER_VENV"
}

head() {
  environment
  # A directory of its own: two clusters on one machine must not share their files, and socket paths must be short.
  mapfile -t given < <(resources)
  exec "$RAY" start --head --block --port="$PORT" --include-dashboard=false --temp-dir="$(mktemp -d /tmp/ponder-ray-XXXXXX)" "${given[@]}"
}

worker() {
  environment
  mapfile -t given < <(resources)
  exec "$RAY" start --block --address="$1" "${given[@]}"
}

# A worker that starts before the head listens would give up at once.
await() {
  local host="${1%:*}" port="${1##*:}"
  for _ in $(seq 120); do
    (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null && return
    sleep 1
  done
  fail "nothing listens at $1 after two minutes" "look at $STATE/head.log, or at the port's firewall"
}

up() {
  token
  mkdir -p "$STATE"
  local address
  address="${PONDER_NODE_IP:-$(hostname -I | awk '{print $1}')}:$PORT"
  export PONDER_NODE_IP="${address%:*}"
  setsid nohup bash "$ROOT/launch/cluster.sh" head > "$STATE/head.log" 2>&1 &
  echo $! > "$STATE/head.pid"
  await "$address"
  for host in "$@"; do
    # The token travels through the connection's input, never in a command line that others can list.
    ssh "$host" "mkdir -p -m 700 '$STATE' && cat > '$STATE/token' && chmod 600 '$STATE/token'" < "$RAY_AUTH_TOKEN_PATH"
    ssh "$host" "setsid nohup env -u PONDER_NODE_IP PONDER_STATE='$STATE' bash '$ROOT/launch/cluster.sh' worker $address \
      > '$STATE/worker.log' 2>&1 < /dev/null & echo \$! > '$STATE/worker.pid'"
  done
  echo "head at $address, $# workers starting. Then:"
  echo "  export RAY_AUTH_TOKEN_PATH=$RAY_AUTH_TOKEN_PATH"
  echo "  ponder preflight --address $address --nodes $(($# + 1))"
  echo "  ponder train RECIPE --set cluster.address=$address"
}

end() { echo "[ ! -s '$STATE/$1.pid' ] || kill -TERM -- -\$(cat '$STATE/$1.pid') 2>/dev/null; rm -f '$STATE/$1.pid'"; }

down() {
  for host in "$@"; do ssh "$host" "$(end worker)"; done
  bash -c "$(end head)"
}

case "${1:-}" in
  up) shift; up "$@" ;;
  down) shift; down "$@" ;;
  head) head ;;
  worker) [[ -n "${2:-}" ]] || fail "worker needs the head's address" "bash launch/cluster.sh worker HOST:PORT"; await "$2"; worker "$2" ;;
  *) sed -n '2,16p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 2 ;;
esac
