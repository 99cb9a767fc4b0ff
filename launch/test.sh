#!/usr/bin/env bash
# Sets up .venv from the locks, then runs everything CI runs: format, lint, floor plan, types, tests.
# Usage: bash launch/test.sh [pytest options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
prepare_environment launch/locks/cpu.txt launch/locks/dev.txt
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

check() {  # check NAME COMMAND...
  local name=$1 start=$SECONDS
  shift
  "$@" || fail "$name failed" "run it again alone: $*"
  printf '[check] %-36s%4d s\n' "$name" $((SECONDS - start))
}

check "format" .venv/bin/ruff format --check .
check "lint" .venv/bin/ruff check .
check "floor plan" .venv/bin/lint-imports --no-cache
check "types" .venv/bin/mypy
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  echo "[note] no chromium found: the tests that open the reports in a browser are skipped (Debian: apt-get install chromium)"
fi
check "tests" .venv/bin/pytest -m "not slow and not gpu" --durations=20 "$@"
