"""Kernels have the names that Nsight Systems shows."""

from __future__ import annotations

import pytest

from fluxperf.harness.timeline import kernel_names
from fluxperf.harness.timeline.kernel_names import demangled, short_name

DEEP = (
    "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl<add<float> >(Base&, add<float> const&)"
    "::{lambda(int)#1}>(int, at::native::gpu_kernel_impl<add<float> >(Base&)::{lambda(int)#1})"
)


@pytest.mark.parametrize(
    ("mangled", "declaration", "short"),
    [
        ("_ZN3foo3barIfLi4EEEvPT_", "void foo::bar<float, 4>(float*)", "bar"),
        ("_Z6vectorPKfS0_Pfi", "vector(float const*, float const*, float*, int)", "vector"),
        ("_ZN12_GLOBAL__N_11kEv", "(anonymous namespace)::k()", "k"),
        ("sm90_xmma_gemm_f32f32_tf32f32", "sm90_xmma_gemm_f32f32_tf32f32", "sm90_xmma_gemm_f32f32_tf32f32"),
        ("_Znot a mangled name", "_Znot a mangled name", "name"),
        ("", "", ""),
    ],
)
def test_names_are_demangled_and_shortened(mangled: str, declaration: str, short: str) -> None:
    assert demangled(mangled) == declaration
    assert short_name(declaration) == short


def test_arguments_within_template_arguments_are_no_end() -> None:
    assert short_name(DEEP) == "elementwise_kernel"


@pytest.mark.parametrize("name", ["<<<", ">", "()", "void <float>(int)", "a b c<"])
def test_names_that_are_no_declarations_are_kept_somehow(name: str) -> None:
    assert short_name(name)


def test_without_a_cpp_runtime_names_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_names, "_library", lambda: None)
    assert demangled("_Z6vectorPKfS0_Pfi") == "_Z6vectorPKfS0_Pfi"
