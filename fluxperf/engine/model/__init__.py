"""FLUX.1, written once against ops with neutral names. It imports no array library."""
