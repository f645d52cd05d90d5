"""SigLIP2 itself: what happens to a text or a picture in a worker. Knows nothing of HTTP."""
