"""Memory mode: which weights stay on the device within a budget, and how the others reach it in time."""
