"""What a precision is worth beside float32, and whether it may be served."""
