"""Terms of the report, each with an explanation. The page shows them beside the sections that use them.

The glossary in ``reports/README.md`` explains them in the same words, and may add to them.
"""

from __future__ import annotations

#: Formula of errors of latents.
RELATIVE = "‖out - ref‖ / ‖ref‖"

TERMS: dict[str, str] = {
    "A/A": "A comparison of a program with itself: every difference is noise of the machine.",
    "A/A band": "One calibrated A/A spread to either side of the median. A sample inside the band shows only noise.",
    "arithmetic intensity": "Floating point operations per byte that an op must move. An op is memory-bound "
    "below the ridge of the roofline, and compute-bound above it.",
    "base, head": "The two sides of a comparison: before a change, and after it.",
    "captured": "The forward recorded once as a CUDA graph and replayed, so launches cost the host almost no time.",
    "ceiling": "The highest rate of a machine: of memory in bytes per second, of matrix products of a dtype in "
    "operations per second. It is measured if possible; otherwise it is the vendor's published peak.",
    "change point": "Two commits between which the level of a series changed; also called a change.",
    "down, up": "Copies from device to host, and from host to device.",
    "exact": "A count, such as copies or bytes. Any change of it is real and needs no statistics.",
    "floor": "The roofline bound: the minimum time for the ops of the quickest rung. Per op it is the larger of bytes "
    "over the memory ceiling and operations over the ceiling of products, summed over all steps.",
    "forward": "One pass through the transformer. Each step makes one.",
    "generation (denoise)": "All steps of a workload, from noise to final latents, without text encoders and image "
    "decoder.",
    "history": "Values of one metric over commits.",
    "interval": "A confidence interval, of 95 % unless it says otherwise. For a speedup it is a bootstrap over the "
    "processes of both sides, and needs three of each; with three it is their range, which is less certain: that of a "
    "time has the true median in 75 % of cases. In a verdict it is that of the median over process pairs.",
    "ledger": "The list of every copy between host and device: direction, bytes, label, op and block.",
    "minimum detectable effect": "The smallest change that this number of process pairs with this spread "
    "detects with the stated power. A smaller regression can pass unnoticed. Verdicts and tables call it the smallest "
    "detectable change.",
    "mission phase": "One of the three optimizations that were named beforehand with an expected speedup; it spans "
    "one or two rungs.",
    "observed run": "A run in which every op is timed separately. It shows where the time goes, but takes longer in "
    "total. Totals therefore come from other runs.",
    "op": "A unit of work of the model with one specification and several implementations.",
    "outcome": "The result of the gate over all verdicts: pass, regression, error or unsure. Only a pass passes.",
    "peer": "Another implementation of the same workload, measured on the same machine.",
    "process": "One fresh start of the program. Samples of one process are not independent, so statistics treat "
    "each process as one observation.",
    "range": "The smallest and the largest of all samples, or their ratios. It is not a confidence interval.",
    "rung": "One of the versions of the forward, from the NumPy baseline to fp8. Each replaces implementations of some "
    "ops; the code of the model stays the same.",
    "sample": "One timed generation. For a whole ladder on this page: a committed record of another machine, shown "
    "beside measurements of this one and never compared with them.",
    "step": "One of the model's denoising steps: one forward and one update of the latents.",
    "sync": "A call that makes the host wait for the device: a copy to the host, reading a scalar, an explicit wait.",
    "twin": "A NumPy function that replaces a kernel on machines without a GPU, and rounds where the kernel rounds. "
    "Its copies and results are exact; its time says nothing about a GPU.",
    "UNSURE": "The samples neither show a relevant change nor rule one out. This does not pass.",
    "verdict": "SAME, FASTER or SLOWER (times), BETTER or WORSE (counts), UNSURE, NOT_COMPARABLE, NEW, GONE, RENAMED "
    "or ERROR for each metric of each rung, with its reason.",
    "witness": "Counts copies and waits independently of the program, through CUPTI.",
    "workload": "A model with sizes in pixels, text tokens, steps and batch.",
}
