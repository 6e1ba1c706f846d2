"""The matrix of images: what they are, how they are built, what they weigh and how fast they wake."""
