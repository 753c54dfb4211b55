"""The words of the report, each explained in a sentence; the page shows them beside the sections that use them."""

from __future__ import annotations

#: How errors of latents are stated.
RELATIVE = "‖out - ref‖ / ‖ref‖"

TERMS: dict[str, str] = {
    "A/A": "A comparison of a program with itself: what it shows is noise of the machine.",
    "A/A band": "One calibrated A/A spread to either side of the median: what lies in it is nothing but noise.",
    "arithmetic intensity": "Floating point operations per byte that an op must move. Below the ridge of the roofline "
    "memory is what bounds it, above it the products.",
    "base, head": "The two sides of a comparison: before a change, and after it.",
    "captured": "The forward recorded once as a CUDA graph and replayed: launches cost the host next to nothing.",
    "ceiling": "The highest rate that a machine can reach: of memory in bytes per second, of products of a dtype in "
    "operations per second. Measured where that was done, else the vendor's published peak.",
    "change": "A place between two commits where the level of a series is another from then on.",
    "denoise": "One generation without text encoders and image decoder: all steps, from noise to final latents.",
    "down, up": "Copies from device to host, and from host to device.",
    "exact": "A count, such as copies or bytes: any change of it is a fact and needs no statistics.",
    "floor": "The least time in which the machine could do what the ops of the quickest rung must do: per op the "
    "longer of bytes over memory's ceiling and operations over the products' ceiling, summed over all steps.",
    "forward": "One step's pass through the transformer.",
    "history": "Values of one metric over commits.",
    "interval": "A 95 % bootstrap interval over the processes of both sides. Given where both have three or more.",
    "ledger": "The list of every copy between host and device: direction, bytes, label, op and block.",
    "minimum detectable effect": "The smallest change that so many process pairs of that spread show with the stated "
    "power. A smaller regression can pass unseen.",
    "observed run": "A run in which every op is timed by itself. It shows where the time goes, and takes longer as a "
    "whole: totals come from runs that nobody observes.",
    "op": "A unit of work of the model with one specification and several implementations.",
    "outcome": "What the gate makes of all verdicts: pass, regression, error or unsure. Only a pass passes.",
    "peer": "Another implementation of the same workload, measured on the same machine.",
    "phase": "One of the three optimizations that were named beforehand with an expected speedup; it spans rungs.",
    "process": "One fresh start of the program. Samples of one process are not independent of each other, so the "
    "process is what statistics count.",
    "range": "The smallest and the largest of all samples, or the ratios that these give. It is no interval of "
    "confidence.",
    "rung": "One step of the ladder, from the numpy baseline to fp8. Each changes one thing only.",
    "sample": "One timed generation. Of a whole ladder on this page: a committed record of another machine, shown "
    "beside what was measured here and never compared with it.",
    "step": "One of the model's denoising steps: one forward and one update of the latents.",
    "sync": "What makes the host wait for the device: a download, a scalar that is read, an explicit wait.",
    "twin": "A NumPy function that stands for a kernel on machines without a GPU, and rounds where the kernel rounds. "
    "What it copies and computes is exact; its time says nothing about a GPU.",
    "UNSURE": "The samples neither show a change nor rule out one of the size that matters. It is not a pass.",
    "verdict": "SAME, FASTER or SLOWER (times), BETTER or WORSE (counts), UNSURE, NOT_COMPARABLE, NEW, GONE, RENAMED "
    "or ERROR for each metric of each rung, with its reason.",
    "witness": "Counts copies and waits from outside of the program, through CUPTI.",
    "workload": "What is run: a model with sizes in pixels, text tokens, steps and batch.",
}
