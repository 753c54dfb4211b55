"""CUPTI as a source: activity records, callbacks at the start of calls that cause them, and nodes of graphs.

This is the only module that talks to CUPTI. Tests without a GPU replace the parts of the ``cupti`` module that it uses.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable
from typing import Any

from fluxperf.errors import WORKING_GPU, DeviceError, NoGpuError
from fluxperf.harness.timeline import driver
from fluxperf.harness.timeline.waiting import blocks
from fluxperf.words import plural

#: CUPTI's kinds of memory copies between host and device (``CUpti_ActivityMemcpyKind``), arrays included.
CROSSINGS = {1: "h2d", 2: "d2h", 3: "h2d", 4: "d2h"}

#: Synchronizations that block the host (``CUpti_ActivitySynchronizationType``). A stream that waits for an event (2)
#: does not.
BLOCKING = {1: "event", 3: "stream", 4: "context"}


def waited(kind: int, call: str | None) -> str:
    """The object that the host waited for in a synchronization; empty if it did not wait.

    Queries of events also have records with the type of a wait. A record of that type counts only if its call is one
    that waits.

    Args:
        kind: type of the record.
        call: name of its call, or ``None`` if it was not seen, as for calls that can neither copy nor block.
    """
    if kind == 1 and (call is None or not blocks(call)):
        return ""
    return BLOCKING.get(kind, "")


#: Kinds of memory (``CUpti_ActivityMemoryKind``). Nsight Systems counts them from 0.
MEMORY = {
    1: "pageable", 2: "pinned", 3: "device", 4: "array", 5: "managed", 6: "device static", 7: "managed static",
}  # fmt: skip

#: Calls that may cause a copy or block the host. Kernel launches are left out, as they are the majority of all calls.
_CALLS = re.compile(r"(cuda|cu|cu64)(Memcpy\w*|\w*Synchronize(_\w+)?|GraphLaunch\w*|ModuleLoad\w*|LibraryLoad\w*)")

_BUFFER_BYTES = 8 << 20

#: CUPTI's status (``CUptiResult``) for an unknown number of a call.
_INVALID_PARAMETER = 1


class CuptiSource:
    """Reads CUPTI's activity records between ``start`` and ``stop``.

    Args:
        kinds: names of activity kinds, such as ``"MEMCPY"``.
        on_activity: receives each record; it must copy the values it needs, since the memory of the record is reused.
        on_call: receives correlation id and name of each call that may copy or block, at its start and in its own
            thread.
        cupti: replacement for ``cupti.cupti`` in a test.
        command: name of the command, for messages.
        on_node: receives the id of each node of a CUDA graph when it is created, in the creating thread, and the id of
            the node of which it is a copy, or ``None``. If nodes cannot be reported, this is not an error; `untold` has
            the reason.

    Raises:
        DeviceError: CUPTI's Python bindings are missing, or too old for ``on_call``.
    """

    def __init__(
        self,
        kinds: Iterable[str],
        on_activity: Callable[[Any], None],
        on_call: Callable[[int, str], None] | None = None,
        cupti: Any = None,
        command: str = "witness",
        on_node: Callable[[int, int | None], None] | None = None,
    ) -> None:
        self._command = command
        self._cupti = cupti or bindings(command)
        if on_call and not all(hasattr(self._cupti, name) for name in ("subscribe", "enable_callback", "unsubscribe")):
            raise DeviceError(
                f"{command}: expected a cupti-python with the callback API (subscribe, enable_callback), but the "
                "installed one has none. Install a newer cupti-python of the same CUDA version."
            )
        self.kinds = self._cupti.ActivityKind
        self._enabled = [getattr(self.kinds, name) for name in kinds]
        self._on_activity, self._on_call, self._on_node = on_activity, on_call, on_node
        self._names: dict[tuple[int, int], str] = {}
        self._subscriber: int | None = None
        self._node_ids: dict[int, bool] = {}
        #: Reason why nodes of graphs are not reported; empty if they are.
        self.untold = ""

    def start(self) -> None:
        """Starts tracing.

        Raises:
            DeviceError: there is no driver, or another tool is already tracing.
        """
        cupti = self._cupti
        try:
            self._subscribe()
            cupti.activity_register_callbacks(lambda: (_BUFFER_BYTES, 0), self._read)
            for kind in self._enabled:
                cupti.activity_enable(kind)
        except (cupti.cuptiError, RuntimeError) as error:
            self._unsubscribe()  # otherwise every later trace of this process would be refused
            raise DeviceError(
                f"{self._command}: expected to start CUPTI, but it refused ({error}). It needs an {WORKING_GPU}, "
                "and must be the only profiler: run without nsys, ncu or another profiler."
            ) from error

    def flush(self) -> None:
        """Reads every record of finished work now.

        Raises:
            DeviceError: records were dropped.
        """
        self._cupti.activity_flush_all(1)
        self._check()

    def stop(self) -> None:
        """Reads the remaining records and ends tracing.

        Raises:
            DeviceError: records were dropped.
        """
        cupti = self._cupti
        self._unsubscribe()
        cupti.activity_flush_all(1)
        for kind in self._enabled:
            cupti.activity_disable(kind)
        self._check()

    def _subscribe(self) -> None:
        """Subscribes to callbacks. Raises CUPTI's error if calls cannot be reported. Unreported nodes are no error."""
        if self._on_node:
            self._find_node_ids()
        if self._on_call:
            self._subscriber = self._cupti.subscribe(self._called, None)
            self._ask_for_calls(self._subscriber)
        if self._node_ids:
            self._ask_for_nodes()

    def _find_node_ids(self) -> None:
        """Callback numbers for created and for cloned nodes; ``None`` if the bindings do not have them."""
        cupti, needed = self._cupti, ("subscribe", "enable_callback", "unsubscribe", "GraphData", "get_graph_node_id")
        numbers = getattr(getattr(cupti, "CallbackIdResource", None), "__members__", {})
        names = {"GRAPHNODE_CREATED": False, "GRAPHNODE_CLONED": True}
        if not all(hasattr(cupti, name) for name in needed) or not all(name in numbers for name in names):
            self.untold = "the installed cupti-python has no callbacks for nodes"
            return
        self._node_ids = {int(numbers[name]): copied for name, copied in names.items()}

    def _ask_for_nodes(self) -> None:
        """Enables the callbacks for nodes; without them nodes are not reported."""
        cupti = self._cupti
        try:
            if self._subscriber is None:
                self._subscriber = cupti.subscribe(self._called, None)
            for number in self._node_ids:
                cupti.enable_callback(1, self._subscriber, cupti.CallbackDomain.RESOURCE, number)
        except cupti.cuptiError as error:
            self.untold = f"CUPTI refused to report nodes ({error})"

    def _ask_for_calls(self, subscriber: int) -> None:
        """Enables a callback for each call. Raises CUPTI's error if it knows none of the calls."""
        cupti, known, refused = self._cupti, 0, None
        for (domain, number), name in _calls(cupti).items():
            self._names[int(domain), int(number)] = name
            try:
                cupti.enable_callback(1, subscriber, domain, number)
                known += 1
            except cupti.cuptiError as error:
                # The bindings also name calls of newer CUDA releases, which the installed library cannot trace.
                if getattr(error, "status", None) != _INVALID_PARAMETER:
                    raise
                refused = error
        if refused and not known:
            raise refused

    def _unsubscribe(self) -> None:
        if self._subscriber is not None:
            self._cupti.unsubscribe(self._subscriber)
            self._subscriber = None

    def _check(self) -> None:
        dropped = ctypes.c_size_t(0)
        self._cupti.activity_get_num_dropped_records(0, 0, ctypes.addressof(dropped))
        if dropped.value:
            raise DeviceError(
                f"{self._command}: expected all records, but CUPTI dropped {plural(dropped.value, 'record')}, so "
                "the counts are too low. Trace a shorter region."
            )

    def _read(self, activities: list[Any]) -> None:
        for activity in activities:
            self._on_activity(activity)

    def _called(self, _user: Any, domain: int, callback: int, data: Any) -> None:
        if self._node_ids and domain == self._cupti.CallbackDomain.RESOURCE:
            self._created(int(callback), data)
        elif self._on_call and data.callback_site == self._cupti.ApiCallbackSite.API_ENTER:
            self._on_call(int(data.correlation_id), self._names.get((int(domain), int(callback)), ""))

    def _created(self, callback: int, data: Any) -> None:
        """Reports a node. Errors are stored, as no error may leave a callback of the driver."""
        cupti, copied = self._cupti, self._node_ids.get(callback)
        if copied is None or self._on_node is None:
            return
        try:
            graph = cupti.GraphData.from_ptr(data.resource_descriptor)
            node = int(cupti.get_graph_node_id(graph.node))
            original = int(cupti.get_graph_node_id(graph.original_node)) if copied else None
        except (cupti.cuptiError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            self.untold = f"CUPTI reported a node without its number ({error})"
            return
        self._on_node(node, original)


def bindings(command: str = "witness") -> Any:
    """The module ``cupti.cupti``.

    Raises:
        NoGpuError: it cannot be imported, and there is no GPU to trace.
        DeviceError: it cannot be imported.
    """
    try:
        from cupti import cupti
    except Exception as error:  # an extension built for other bindings can fail with any error, such as ValueError
        if not driver.device_count():
            raise NoGpuError(command) from error
        raise DeviceError(
            f"{command}: expected cupti-python, but it cannot be imported ({error}). Install fluxperf[cuda12] or "
            "fluxperf[cuda13] into a new environment: CUPTI and cuda-bindings must be of one CUDA release. CUDA 12 "
            "has no cupti-python for Python 3.13 or aarch64."
        ) from error
    return cupti


def _calls(cupti: Any) -> dict[tuple[int, int], str]:
    """Every call in ``_CALLS``, by domain and number, runtime and driver.

    Raises:
        RuntimeError: the bindings list no calls.
    """
    found: dict[tuple[int, int], str] = {}
    for api, domain in (("runtime", cupti.CallbackDomain.RUNTIME_API), ("driver", cupti.CallbackDomain.DRIVER_API)):
        members = _numbers(cupti, api).__members__.items()
        found |= {(domain, number): name for name, number in members if _CALLS.fullmatch(name)}
    return found


def _numbers(cupti: Any, api: str) -> Any:
    """The list of an API's calls: ``runtime_api_trace_cbid`` or ``RuntimeApiTraceCbid``, depending on the release."""
    wanted = f"{api}apitracecbid"
    for name in dir(cupti):
        if name.replace("_", "").lower() == wanted:
            return getattr(cupti, name)
    raise RuntimeError(f"the installed cupti-python lists no calls of the {api} API")
