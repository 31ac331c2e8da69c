"""Checks: pure functions of facts and profile that answer with a verdict. No I/O in here."""
