#!/usr/bin/env bash
# Sets up .venv from the CPU lock and runs the main job: cold start, evaluation, GRPO, evaluation, report.
# Usage: bash launch/quickstart.sh [options of `ponder train`, such as --set run.seed=1]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
prepare_environment launch/locks/cpu.txt
exec .venv/bin/ponder train launch/recipes/quickstart.toml "$@"
