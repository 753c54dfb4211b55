#!/usr/bin/env bash
# What the action runs, in a checkout of fluxperf. Inputs come as environment variables, never as text in a script.
set -euo pipefail

: "${MODE:=exact}" "${BASE:=}" "${HEAD:=HEAD}" "${WORKLOAD:=}" "${RUNGS:=}" "${UNSURE:=fail}" "${PYTHON:=python3}" "${OUTPUT:=reports/out}"
stop() { echo "::error::perf-gate: $1" >&2; exit 2; }
case $UNSURE in fail | warn) ;; *) stop "unsure '$UNSURE': expected fail or warn" ;; esac
case $MODE in exact | revisions) ;; *) stop "mode '$MODE': expected exact or revisions" ;; esac
if [ "$MODE" = revisions ] && [ -z "$BASE" ]; then stop "mode revisions: expected a base to compare with, got none"; fi
cd "${DIRECTORY:-.}" || stop "directory '${DIRECTORY:-.}': expected a checkout of fluxperf"
[ -f fluxperf/__init__.py ] || stop "directory '${DIRECTORY:-.}': expected a checkout of fluxperf, there is no fluxperf/__init__.py"

# Nothing that runs below can write into the summary, the outputs or the environment of this job: the gate gets the
# summary's name for itself, and what it measures gets none of them (fluxperf/harness/isolation.py).
summary=${GITHUB_STEP_SUMMARY:-} outputs=${GITHUB_OUTPUT:-}
while IFS= read -r name; do unset "$name"; done < <(compgen -e | grep -E '^(GITHUB|ACTIONS|RUNNER)_|^PYTHON(PATH|HOME|STARTUP|USERBASE)$' || true)
export PYTHONNOUSERSITE=1

# A program that was installed by an earlier step is used as it is. Otherwise the gate of the base judges: one that came
# with the change would judge itself.
fluxperf=${FLUXPERF:-}
tools=$(mktemp -d)
trap 'git worktree remove --force "$tools/judge" 2>/dev/null || true; rm -rf "$tools"' EXIT
if [ -z "$fluxperf" ]; then
  extra=
  if command -v nvidia-smi >/dev/null; then
    major=$(nvidia-smi | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p')
    case $major in 10 | 11 | 12) extra='[cuda12]' ;; ?*) extra='[cuda13]' ;; esac
  fi
  judge=.
  if [ "$MODE" = revisions ]; then
    common=$(git merge-base --end-of-options "$BASE" "$HEAD") || stop "'$BASE' and '$HEAD': expected revisions with a common commit (fetch-depth: 0)"
    git worktree add --quiet --detach "$tools/judge" "$common"
    judge=$tools/judge
  fi
  "$PYTHON" -I -m venv "$tools/venv"
  "$tools/venv/bin/python" -I -m pip install --quiet --disable-pip-version-check "$judge$extra"
  fluxperf="$tools/venv/bin/python -I -m fluxperf"
fi

options=(--json "$OUTPUT/gate.json" --junit "$OUTPUT/gate.xml" --sarif "$OUTPUT/gate.sarif" --markdown "$OUTPUT/gate.md")
if [ -n "$summary" ]; then options+=(--github); fi
if [ -n "$WORKLOAD" ]; then options+=(--workload "$WORKLOAD"); fi
while IFS= read -r rung; do
  if [ -n "$rung" ]; then options+=(--rung "$rung"); fi
done <<<"$RUNGS"
if [ -n "$BASE" ]; then options+=(--base "$BASE"); fi

mkdir -p "$OUTPUT"
rm -f "$OUTPUT"/gate.{json,xml,sarif,md}
code=0
if [ "$MODE" = exact ]; then
  GITHUB_STEP_SUMMARY=$summary $fluxperf gate exact "${options[@]}" || code=$?
else
  GITHUB_STEP_SUMMARY=$summary $fluxperf gate --head "$HEAD" "${options[@]}" || code=$?
fi
case $code in 0) outcome=pass ;; 1) outcome=regression ;; 3) outcome=unsure ;; *) outcome=error ;; esac
if [ -n "$outputs" ]; then printf 'exit-code=%s\noutcome=%s\n' "$code" "$outcome" >>"$outputs"; fi
if [ "$outcome" = unsure ] && [ "$UNSURE" = warn ]; then
  echo "::warning title=perf-gate is UNSURE::Nothing is shown: neither a change nor that there is none. More pairs, or a quieter machine, would tell."
  if [ -n "$summary" ]; then printf '\n**UNSURE is no pass.** The job goes on because it was told to warn.\n' >>"$summary"; fi
  exit 0
fi
exit "$code"
