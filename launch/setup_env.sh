# Sourced by quickstart.sh and test.sh: makes .venv from the locks, names each stage with its time, fails with one line.
# Nothing here is specific to a machine. Settings a user may give in the environment:
#   PONDER_PYTHON       the Python 3.11 to build the environment with (default: python3.11, then python3)
#   PONDER_TORCH_INDEX  where to find the CPU build of torch when the configured index has none

PONDER_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PONDER_TORCH_INDEX=${PONDER_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
cd "$PONDER_ROOT"

fail() {  # fail WHAT REMEDY
  printf 'error: %s. Remedy: %s\n' "$1" "$2" >&2
  exit 1
}

stage() {  # stage NAME COMMAND...: runs it, prints its time, keeps its output in .venv/setup.log
  local name=$1 start=$SECONDS
  shift
  printf '%-44s' "[set-up] $name"
  if "$@" >>"$PONDER_ROOT/.venv/setup.log" 2>&1; then
    printf '%4d s\n' $((SECONDS - start))
  else
    printf 'failed after %d s\n' $((SECONDS - start))
    tail -n 5 "$PONDER_ROOT/.venv/setup.log" >&2
    return 1
  fi
}

find_python() {
  local candidate
  for candidate in "${PONDER_PYTHON:-python3.11}" python3 python; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

install_lock() {  # install_lock FILE: from the configured index; --no-deps because a lock is complete
  .venv/bin/python -m pip install --quiet --no-deps --requirement "$1"
}

install_torch() {
  local pin
  pin=$(grep '^torch==' launch/locks/cpu.txt)
  .venv/bin/python -c "import importlib.metadata as m, sys; sys.exit('torch==' + m.version('torch') != '$pin')" 2>/dev/null && return
  .venv/bin/python -m pip install --quiet --no-deps "$pin" ||
    .venv/bin/python -m pip install --quiet --no-deps --index-url "$PONDER_TORCH_INDEX" "$pin"
}

fingerprint() {  # what the environment was made from; a change of any part makes it again
  cat "$@" pyproject.toml | sha256sum | cut -d' ' -f1
}

prepare_environment() {  # prepare_environment LOCK...: idempotent
  local python lock mark
  python=$(find_python) || fail "Python 3.11 was not found" "install it, or name it with PONDER_PYTHON=/path/to/python3.11"
  mark=$(fingerprint "$@")
  if [ "$(cat .venv/ponder-locks 2>/dev/null)" = "$mark" ] && .venv/bin/python -c 'import torch, vllm.version' 2>/dev/null; then
    printf '[set-up] .venv is up to date\n'
    return
  fi
  if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv || fail "could not make .venv with $python" "install the venv module of Python 3.11"
  fi
  : >.venv/setup.log
  stage "torch (CPU build)" install_torch ||
    fail "the CPU build of torch could not be installed" "check the network, or set PONDER_TORCH_INDEX to an index that has $(grep '^torch==' launch/locks/cpu.txt)"
  for lock in "$@"; do
    stage "packages of $lock" install_lock "$lock" ||
      fail "the packages of $lock could not be installed" "read .venv/setup.log; is the package index reachable (pip config list)?"
  done
  stage "ponder itself" .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable . ||
    fail "ponder could not be installed" "read .venv/setup.log"
  stage "first import of torch and vLLM" .venv/bin/python -c 'import torch, vllm' ||
    fail "torch or vLLM cannot be imported" "remove .venv and run again; if it stays, run .venv/bin/ponder doctor"
  echo "$mark" >.venv/ponder-locks
}
