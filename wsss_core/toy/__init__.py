"""The toy experiment of RIB: what digits, and marks that go with them, leave in each layer of a classifier."""
