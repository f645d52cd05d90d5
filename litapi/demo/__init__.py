"""A small SigLIP2 that ships, the pictures it knows, and what it is worth on them."""
