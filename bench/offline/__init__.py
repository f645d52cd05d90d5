"""The towers without a server: items a second, beside what the machine's matrix products allow."""
