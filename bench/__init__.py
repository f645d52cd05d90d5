"""Measuring and judging siglit and its peers from outside, over HTTP."""
