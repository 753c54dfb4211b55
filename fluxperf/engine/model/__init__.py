"""FLUX.1, written once against ops named by meaning. Imports no array library."""
