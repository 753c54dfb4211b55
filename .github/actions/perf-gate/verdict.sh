#!/usr/bin/env bash
# What the gate's jobs came to, for a branch's required check: a job that was skipped or cancelled is no pass, and one that
# was unsure says so. VERDICTS has what each timed job said, as name=verdict.
set -euo pipefail
: "${EXACT:?}" "${TIMED:?}" "${VERDICTS:=}" "${GPU:=}"
say() { if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then printf '%s\n' "$1" >>"$GITHUB_STEP_SUMMARY"; fi; }
fail() { say "## Performance gate: FAILED: $1"; echo "::error::$1"; exit 1; }
if [ "$EXACT" != success ]; then fail "the exact gate ended with '$EXACT'"; fi
if [ "$GPU" != true ]; then
  text="counts passed, nothing is proven of times: the timed gate is not set up here (repository variable FLUXPERF_GPU)"
  say "## Performance gate: $text"
  echo "::notice::$text"
elif [ "$TIMED" != success ]; then
  fail "the timed gate ended with '$TIMED': nothing is proven of times. Changes from forks are gated by a maintainer's own branch (docs/ci.md)."
else
  unsure=
  for said in $VERDICTS; do
    case $said in
    *=pass) ;;
    *=unsure) unsure="$unsure ${said%=unsure}" ;;
    *) fail "a timed job succeeded and its verdict is '${said#*=}': nothing is proven of times" ;;
    esac
  done
  if [ -z "$VERDICTS" ]; then fail "no timed job told its verdict: nothing is proven of times"; fi
  if [ -n "$unsure" ]; then
    text="UNSURE:$unsure. Neither a change nor its absence is shown; this is no proof. The variable FLUXPERF_UNSURE, set to fail, makes it one that is required."
    say "## Performance gate: $text"
    echo "::warning title=perf-gate is UNSURE::$text"
  fi
fi
