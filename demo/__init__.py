"""Trains the small checkpoint that ships in litapi/demo: `python -m demo --seed 0`."""
