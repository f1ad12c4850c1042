"""Whole slides: from pixels on glass to a map with one verdict for every 32 x 32 px square."""
