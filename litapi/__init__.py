"""siglit: SigLIP2 embeddings over HTTP. Importing this package never loads torch."""
