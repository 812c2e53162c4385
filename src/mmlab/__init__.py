"""mmlab: would that quote have been filled, and would it have paid?"""

__version__ = "0.7.0"
