"""Quality: errors of rungs, of layer types in e4m3, and of diffusers against a float32 run on the same inputs."""
