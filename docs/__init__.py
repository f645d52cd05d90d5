"""The documents, and the command that writes their generated tables."""
