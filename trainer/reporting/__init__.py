"""How good a run or a bundle is: numbers, figures, and one page that holds them all."""
