"""Ways to run monro."""
