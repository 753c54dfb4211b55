"""Breaking things on purpose: hostile inputs, signals, full disks, writers at the same time."""
