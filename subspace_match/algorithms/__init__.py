"""Maximum, minimal and simple matches of two activation matrices, exact and fast. Knows theory, and no network."""
