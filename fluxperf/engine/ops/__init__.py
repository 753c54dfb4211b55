"""Ops: one specification and oracle each, several implementations, bound by name to a device."""
