"""The systems that siglit would replace, each as its users write it, started by name."""
