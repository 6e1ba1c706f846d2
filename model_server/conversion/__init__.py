"""A bundle made into another: for another backend, smaller, or taking raw pixels."""
