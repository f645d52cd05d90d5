"""Measures the service on a GPU in nine minutes, for machines that are rented by the minute."""
