"""What is true of a set of records, computed once: no plot, no markup. Page, formats and commands are faces of it."""
