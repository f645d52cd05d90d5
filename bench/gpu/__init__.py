"""What a GPU that is rented by the minute has to say of the service, asked in nine of them."""
