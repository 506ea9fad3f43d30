"""Files of a run: written whole, checked when read, and byte for byte the same for the same content."""
