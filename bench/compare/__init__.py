"""siglit beside the systems it would replace, in named scenarios, each with its targets."""
