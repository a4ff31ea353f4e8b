"""Runs approved code: a warm fork server, one locked-down child a job, and what watches it from outside."""
