"""Code that every output shares: numbers with units, harmless text, and the terms in use."""
