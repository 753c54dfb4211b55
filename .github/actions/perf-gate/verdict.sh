#!/usr/bin/env bash
# What the gate's jobs came to, for a branch's required check: a job that was skipped or cancelled is no pass, and one that
# was unsure says so. VERDICTS has what each timed job said, as name=verdict. Where times are gated, a check run of its own
# says what is known of them: success, neutral (unsure) or failure, if CHECK_TOKEN may make one.
set -euo pipefail
: "${EXACT:?}" "${TIMED:?}" "${VERDICTS:=}" "${GPU:=}" "${CHECK_TOKEN:=}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CHECK_NAME="${CHECK_NAME:-perf-gate: times}" CHECK_TOKEN
say() { if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then printf '%s\n' "$1" >>"$GITHUB_STEP_SUMMARY"; fi; }
check() {
  if [ "$GPU" != true ]; then return; fi
  local why
  if why=$(python3 -I "$here/check_run.py" "$1" "$2" 2>&1 >/dev/null); then return; fi
  say "No check run says '$1' beside this job: ${why//$'\n'/ }"
  why=${why//'%'/'%25'}
  echo "::warning title=perf-gate has no $1 check::${why//$'\n'/ }"
}
fail() { say "## Performance gate: FAILED: $1"; echo "::error::$1"; check failure "$1"; exit 1; }
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
    check neutral "$text"
  else
    check success "No regression is shown:${VERDICTS:+ $VERDICTS}"
  fi
fi
