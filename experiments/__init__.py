"""Doors for people: run, sweep, reproduce, report."""
