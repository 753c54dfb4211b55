"""Ops: one specification and oracle each, and several implementations that are bound by name to a device."""
