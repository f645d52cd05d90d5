"""Redis as something that may help and can do no harm: address, look-ups, writes, private child."""
