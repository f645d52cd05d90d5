"""Two instances behind a real balancer: what a client sees of kills, restarts and changes."""
