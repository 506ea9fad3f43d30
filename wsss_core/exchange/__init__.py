"""Labels in the forms of other programs."""
