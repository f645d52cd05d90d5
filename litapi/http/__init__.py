"""What runs in an HTTP process: from a connection to an answer, without torch."""
