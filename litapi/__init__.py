"""siglit: SigLIP2 embeddings over HTTP. Importing this package never loads torch."""

import logging

# transformers imports torchao wherever it finds it, and that tells of kernels for other devices.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
