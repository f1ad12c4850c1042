"""The functions that ``import histoedge`` offers: one for each command, under the same names."""
