"""How siglit is run by others: image, balancers, cluster, monitoring; and how large it must be."""
