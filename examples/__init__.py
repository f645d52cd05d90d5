"""Clients of a running server, each short enough to copy from."""
