"""Facts about a set of records, computed once, without plots or markup. Page, formats and commands show them."""
