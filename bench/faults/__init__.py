"""The table of faults: what the service must withstand, on real processes, each answer judged."""
