#!/usr/bin/env bash
# What the action runs, in a checkout of fluxperf. Inputs come as environment variables, never as text in a script.
set -euo pipefail

: "${MODE:=exact}" "${BASE:=}" "${HEAD:=HEAD}" "${WORKLOAD:=}" "${RUNGS:=}" "${UNSURE:=fail}" "${PYTHON:=python3}" "${OUTPUT:=reports/out}"
stop() { echo "::error::perf-gate: $1" >&2; exit 2; }
case $UNSURE in fail | warn) ;; *) stop "unsure '$UNSURE': expected fail or warn" ;; esac

# A program that was installed by an earlier step is used as it is.
fluxperf=${FLUXPERF:-}
if [ -z "$fluxperf" ]; then
  extra=
  if command -v nvidia-smi >/dev/null; then
    major=$(nvidia-smi | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p')
    case $major in 10 | 11 | 12) extra='[cuda12]' ;; ?*) extra='[cuda13]' ;; esac
  fi
  "$PYTHON" -m venv .venv-gate
  .venv-gate/bin/python -m pip install --quiet --disable-pip-version-check ".$extra"
  fluxperf=.venv-gate/bin/fluxperf
fi

options=(--json "$OUTPUT/gate.json" --junit "$OUTPUT/gate.xml" --sarif "$OUTPUT/gate.sarif" --markdown "$OUTPUT/gate.md")
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then options+=(--github); fi
if [ -n "$WORKLOAD" ]; then options+=(--workload "$WORKLOAD"); fi
while IFS= read -r rung; do
  if [ -n "$rung" ]; then options+=(--rung "$rung"); fi
done <<<"$RUNGS"

mkdir -p "$OUTPUT"
code=0
case $MODE in
  exact) $fluxperf gate exact "${options[@]}" || code=$? ;;
  revisions)
    if [ -z "$BASE" ]; then stop "mode revisions: expected a base to compare with, got none"; fi
    $fluxperf gate --base "$BASE" --head "$HEAD" "${options[@]}" || code=$?
    ;;
  *) stop "mode '$MODE': expected exact or revisions" ;;
esac
if [ -n "${GITHUB_OUTPUT:-}" ]; then echo "exit-code=$code" >>"$GITHUB_OUTPUT"; fi
if [ "$code" = 3 ] && [ "$UNSURE" = warn ]; then
  echo "::warning::perf-gate: unsure. More pairs, or a quieter machine, would tell."
  exit 0
fi
exit "$code"
