"""Requests: filed by analysts, judged by behaviour, decided by people or rules, run, and what came of them."""
