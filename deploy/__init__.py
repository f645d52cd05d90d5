"""How siglit is run by others: image, balancers, cluster, monitoring."""
