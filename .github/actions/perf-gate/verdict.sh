#!/usr/bin/env bash
# What the gate's jobs came to, for a branch's required check: a job that was skipped or cancelled is no pass.
set -euo pipefail
: "${EXACT:?}" "${TIMED:?}" "${GPU:=}"
if [ "$EXACT" != success ]; then echo "::error::the exact gate ended with '$EXACT'"; exit 1; fi
if [ "$GPU" != true ]; then
  echo "::notice::The timed gate is not set up here (repository variable FLUXPERF_GPU): counts passed, nothing is proven of times."
elif [ "$TIMED" != success ]; then
  echo "::error::the timed gate ended with '$TIMED': nothing is proven of times. Changes from forks are gated by a maintainer's own branch (docs/ci.md)."
  exit 1
fi
