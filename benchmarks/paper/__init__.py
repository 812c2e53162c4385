"""Avellaneda and Stoikov (2008) and the quotes of Gueant, Lehalle and Fernandez-Tapia (2013), reproduced."""
