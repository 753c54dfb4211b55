"""Checks steps that are launches of a CUDA graph: each must be one launch with the same nodes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from fluxperf.harness.timeline.model import NONE, Timeline, Work
from fluxperf.harness.timeline.places import Places
from fluxperf.words import plural

#: Advice for getting the nodes' ops if the profiler did not see the nodes' creation.
_OTHERWISE = "Profile with nsys, or op by op with --eager-form."


def check_replays(timeline: Timeline, steps: int) -> tuple[list[str], list[str]]:
    """Sentences about agreement and disagreement with ``steps`` launches of one graph."""
    places = Places(timeline)
    found: dict[int, list[Work]] = defaultdict(list)
    for row in timeline.work:
        if (step := places.step(row.range)) != NONE:
            found[step].append(row)
    problems = []
    if len(found) != steps:
        problems.append(f"Expected GPU work in {steps} steps, found it in {len(found)}.")
    if timeline.graph_mode.lower() == "graph" or any(row.kind == "graph" for rows in found.values() for row in rows):
        return [], [*problems, "The graph was traced as a whole: its nodes are not in the timeline."]
    nodes = [Counter(row.graph_node for row in rows) for rows in found.values()]
    for step, rows in found.items():
        problems += _of_one(timeline, timeline.ranges[step].name, rows)
    if any(one != nodes[0] for one in nodes[1:]):
        problems.append(f"The steps differ: they ran {', '.join(str(len(one)) for one in nodes)} nodes.")
    problems += _unnamed(row for rows in found.values() for row in rows)
    if problems or not nodes:
        return [], problems
    kernels = sum(row.kind == "kernel" for row in next(iter(found.values())))
    number = f"{steps} steps, one launch each" if steps > 1 else "1 step, one launch"
    return [f"graph: {number}, of {plural(len(nodes[0]), 'node')} ({plural(kernels, 'kernel')})"], []


def _of_one(timeline: Timeline, name: str, rows: list[Work]) -> list[str]:
    """Problems of one step."""
    problems = []
    launches = {row.call for row in rows if row.graph_node is not None}
    calls = Counter(timeline.calls[call].name for call in launches if call != NONE)
    if len(launches) != 1 or NONE in launches:
        seen = ", ".join(f"{number} x {call}" for call, number in calls.items()) or "none"
        problems.append(f"{name}: expected one launch of a graph, found {len(launches)} ({seen}).")
    beside = sum(row.graph_node is None for row in rows)
    if beside:
        problems.append(f"{name}: {plural(beside, 'piece')} of GPU work ran outside of the graph.")
    often = sum(number > 1 for node, number in Counter(row.graph_node for row in rows).items() if node is not None)
    if often:
        problems.append(f"{name}: {plural(often, 'node')} ran more than once.")
    return problems


def _unnamed(rows: Iterable[Work]) -> list[str]:
    """Nodes whose creation the profiler did not see."""
    whole: set[int] = set()
    unknown: set[int] = set()
    for row in rows:
        if row.graph_node is not None:
            whole.add(row.graph_node)
            if row.captured == NONE:
                unknown.add(row.graph_node)
    if not unknown:
        return []
    return [
        f"{len(unknown)} of {len(whole)} nodes of the graph have no op, as their creation was not seen. {_OTHERWISE}"
    ]
