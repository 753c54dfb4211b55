"""Quality: how far rungs, single types of layers in e4m3, and diffusers are from a float32 run on the same numbers."""
