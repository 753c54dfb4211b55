#!/usr/bin/env bash
# What the action runs, in a checkout of fluxperf. Inputs come as environment variables, never as text in a script.
set -euo pipefail

: "${MODE:=exact}" "${BASE:=}" "${HEAD:=HEAD}" "${WORKLOAD:=}" "${RUNGS:=}" "${ALIVE:=}" "${UNSURE:=fail}" "${PYTHON:=python3}" "${OUTPUT:=reports/out}"
summary=${GITHUB_STEP_SUMMARY:-} outputs=${GITHUB_OUTPUT:-}
tell() { if [ -n "$outputs" ]; then printf 'exit-code=%s\nverdict=%s\n' "$1" "$2" >>"$outputs"; fi; }
# Exit code 1 means a regression: whatever else fails ends here.
stop() {
  tell 2 error
  echo "::error::perf-gate: $1" >&2
  exit 2
}
case $UNSURE in fail | warn) ;; *) stop "unsure '$UNSURE': expected fail or warn" ;; esac
case $MODE in exact | revisions) ;; *) stop "mode '$MODE': expected exact or revisions" ;; esac
if [ "$MODE" = revisions ] && [ -z "$BASE" ]; then stop "mode revisions: expected a base to compare with, got none"; fi
case $ALIVE in '') ;; [1-9] | [1-9][0-9]) ;; *) stop "alive '$ALIVE': expected a number of processes, from 1 to 99" ;; esac
if [ "$MODE" = exact ] && [ -n "$ALIVE" ]; then stop "alive '$ALIVE': expected mode revisions, nothing is timed in mode exact"; fi
cd "${DIRECTORY:-.}" || stop "directory '${DIRECTORY:-.}': expected a checkout of fluxperf"
[ -f fluxperf/__init__.py ] || stop "directory '${DIRECTORY:-.}': expected a checkout of fluxperf, there is no fluxperf/__init__.py"

# Nothing that runs below can write into the summary, the outputs or the environment of this job: the gate gets the
# summary's name for itself, and what it measures gets none of them (fluxperf/harness/isolation.py).
while IFS= read -r name; do unset "$name"; done < <(compgen -e | grep -E '^(GITHUB|ACTIONS|RUNNER)_|^PYTHON(PATH|HOME|STARTUP|USERBASE)$|^FLUXPERF_COMMIT$' || true)
export PYTHONNOUSERSITE=1

# A program that was installed by an earlier step is used as it is. Otherwise the gate of the base judges: one that came
# with the change would judge itself.
fluxperf=${FLUXPERF:-}
tools=$(mktemp -d) || stop "expected a folder for temporary files"
trap 'git worktree remove --force "$tools/judge" 2>/dev/null || true; rm -rf "$tools"' EXIT
if [ -z "$fluxperf" ]; then
  extra=
  if command -v nvidia-smi >/dev/null; then
    major=$(nvidia-smi | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p') || stop "nvidia-smi does not work"
    case $major in 10 | 11 | 12) extra='[cuda12]' ;; ?*) extra='[cuda13]' ;; esac
  fi
  judge=.
  if [ "$MODE" = revisions ]; then
    common=$(git merge-base --end-of-options "$BASE" "$HEAD") || stop "'$BASE' and '$HEAD': expected revisions with a common commit (fetch-depth: 0)"
    git worktree add --quiet --detach "$tools/judge" "$common" || stop "$common cannot be checked out"
    judge=$tools/judge
  fi
  "$PYTHON" -I -m venv "$tools/venv" || stop "'$PYTHON': expected a Python that makes environments"
  "$tools/venv/bin/python" -I -m pip install --quiet --disable-pip-version-check "$judge$extra" || stop "the gate cannot be installed"
  fluxperf="$tools/venv/bin/python -I -m fluxperf"
fi

options=(--json "$OUTPUT/gate.json" --junit "$OUTPUT/gate.xml" --sarif "$OUTPUT/gate.sarif" --markdown "$OUTPUT/gate.md")
if [ -n "$summary" ]; then options+=(--github); fi
if [ -n "$WORKLOAD" ]; then options+=("--workload=$WORKLOAD"); fi
while IFS= read -r rung; do
  if [ -n "$rung" ]; then options+=("--rung=$rung"); fi
done <<<"$RUNGS"
if [ -n "$BASE" ]; then options+=("--base=$BASE"); fi

mkdir -p "$OUTPUT" && rm -f "$OUTPUT"/gate.{json,xml,sarif,md} || stop "'$OUTPUT': expected a folder to write to"
code=0
if [ "$MODE" = exact ]; then
  GITHUB_STEP_SUMMARY=$summary $fluxperf gate exact "${options[@]}" || code=$?
else
  if [ -n "$ALIVE" ]; then options+=("--alive=$ALIVE"); fi
  GITHUB_STEP_SUMMARY=$summary $fluxperf gate "--head=$HEAD" "${options[@]}" || code=$?
fi
# A program that did not start, or was killed, has written no verdict, whatever its exit code says.
case $code in 0) verdict=pass ;; 1) verdict=regression ;; 3) verdict=unsure ;; *) stop "the gate ended with $code: nothing is proven" ;; esac
[ -f "$OUTPUT/gate.json" ] || stop "the gate ended with $code and wrote no verdict: nothing is proven"
tell "$code" "$verdict"
if [ "$verdict" = unsure ] && [ "$UNSURE" = warn ]; then
  echo "::warning title=perf-gate is UNSURE::Nothing is shown: neither a change nor that there is none. More pairs, or a quieter machine, would tell."
  if [ -n "$summary" ]; then printf '\n**UNSURE is no pass.** The job goes on because it was told to warn.\n' >>"$summary"; fi
  exit 0
fi
exit "$code"
