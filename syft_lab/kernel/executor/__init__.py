"""Runs approved code: a warm fork server, one locked-down child a job, and what watches it from outside."""

READY = b"R"  # the first byte that a job writes: its walls stand
