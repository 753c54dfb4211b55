"""Bounds of a rung's error: ``|result - reference| / |reference|`` against diffusers in float32."""

from __future__ import annotations

#: Float32 rungs against float32: rounding of sums, in two orders. Measured 2.4e-7; at a guidance of 30 it is 1.2e-5 and
#: more if one frequency of the timestep features is a unit in the last place off.
FLOAT32_BOUND = 2e-6
#: Error of a bfloat16 rung over the error of diffusers' own bfloat16 model, both against diffusers in float32.
BFLOAT16_RATIO = 1.1
#: Derived as follows. e4m3 keeps 3 bits of mantissa: within a binade values are 2^-3 apart, so a rounding error is
#: uniform up to 2^-4, RMS 2^-4 / sqrt(3) = 3.6 % of the binade's lower end, or 2.5 % of a value's RMS, as values are
#: spread between the ends. A product has two rounded operands with independent errors: 3.5 % of its result. A branch is
#: two such products in sequence (qkv and out, with V and the weights between; both halves of an MLP): about 5 %.
#: Residuals stay in bfloat16, and a branch is 4 to 12 % of the stream that it is added to (measured in float64 with
#: these weights); six independent ones are 22 %. So 5 % of 22 % = 1.1 %, and 0.5 % of bfloat16: 1.2 % in all. Measured
#: 0.9 to 1.6 %; the bound is twice that.
FP8_BOUND = 0.03

#: 28 steps, each velocity off by rounding.
LATENTS_FLOAT32_BOUND = 2e-6
#: The noise is exact and is most of the latents' norm, so their error is smaller than the velocities': measured 0.6 to
#: 0.7 %.
LATENTS_FP8_BOUND = 0.014
