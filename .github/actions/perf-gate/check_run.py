#!/usr/bin/env python3
"""Makes a check run of a commit, such as a neutral one: a job on GitHub has no such end, its Checks API has.

    check_run.py CONCLUSION TITLE    success, neutral or failure; TITLE is also its text

The environment says where: GITHUB_API_URL, GITHUB_REPOSITORY, CHECK_SHA (the commit), CHECK_TOKEN (of a job with the
permission checks: write), CHECK_NAME, and CHECK_URL, where details are. It ends with 0 if there is a check run now, and
with 1 and one line on stderr if there is none. Needs Python alone, so that a job without fluxperf can run it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.request
from typing import NoReturn

#: Seconds that the API gets, and characters of what it says that are repeated.
PATIENCE_S, MOST = 30.0, 200

#: What to do where the API refuses.
ADVICE = {
    401: "Give CHECK_TOKEN the job's github.token.",
    403: "Give the job `permissions: checks: write`; the token of a pull request from a fork never has it.",
    404: "Give the job `permissions: checks: write`; or the API does not know this repository.",
    422: "CHECK_SHA must be a commit of the repository.",
}


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows nowhere: the token is for the API alone."""

    def redirect_request(self, *_: object) -> None:
        return None


def main(conclusion: str, title: str) -> None:
    """Makes the check run, or ends with 1 and why not."""
    if conclusion not in ("success", "neutral", "failure"):
        _refuse(f"conclusion '{conclusion}': expected success, neutral or failure.")
    names = ("GITHUB_API_URL", "GITHUB_REPOSITORY", "CHECK_SHA", "CHECK_TOKEN")
    lacking = [name for name in names if not os.environ.get(name)]
    if lacking:
        _refuse(f"expected {', '.join(lacking)} in the environment.")
    api, repository, sha, token = (os.environ[name].strip() for name in names)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or not re.fullmatch(r"[0-9a-f]{40,64}", sha):
        _refuse(f"expected GITHUB_REPOSITORY as owner/name and CHECK_SHA as a commit, got {repository!r}, {sha!r}.")
    body = {
        "name": os.environ.get("CHECK_NAME") or "performance gate",
        "head_sha": sha,
        "status": "completed",
        "conclusion": conclusion,
        "output": {"title": title, "summary": title},
    }
    if url := os.environ.get("CHECK_URL"):
        body["details_url"] = url
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "User-Agent": "perf-gate",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    try:
        asked = urllib.request.Request(
            f"{api.rstrip('/')}/repos/{repository}/check-runs", json.dumps(body).encode(), headers, method="POST"
        )
        with urllib.request.build_opener(_Straight).open(asked, timeout=PATIENCE_S) as answer:
            if answer.status != 201:
                _refuse(f"the API answered {answer.status}, expected 201.")
    except urllib.error.HTTPError as error:
        _refuse(f"the API answered {error.code} ({_said(error)}). {ADVICE.get(error.code, 'Run the job again.')}")
    except (OSError, ValueError) as error:
        _refuse(f"the API could not be reached ({error}). Run the job again.")


def _said(error: urllib.error.HTTPError) -> str:
    """The message in an answer, if it has one."""
    try:
        said = str(json.loads(error.read(1 << 16))["message"])
    except (OSError, ValueError, KeyError, TypeError):
        said = str(error.reason)
    return re.sub(r"[^\w .,:;/%'-]", " ", said)  # no markup for a summary


def _refuse(text: str) -> NoReturn:
    """Ends with 1; what came from elsewhere is one line of plain characters."""
    plain = re.sub(r"[^ -~]", " ", text)
    sys.exit(f"check run: {plain if len(plain) <= 2 * MOST else plain[:MOST] + ' .. ' + plain[-MOST:]}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        _refuse("expected CONCLUSION and TITLE.")
    main(sys.argv[1], sys.argv[2])
