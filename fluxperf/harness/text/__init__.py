"""Code that every output shares: numbers with their units, text from outside made harmless, and the terms in use."""
