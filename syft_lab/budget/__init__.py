"""Differential privacy: what a question costs (`accountant`), how it is asked (`queries`), what noise does (`mechanisms`)."""
