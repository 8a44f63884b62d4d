"""How many digits answers have behind the point, whatever their form."""

PIXEL_DIGITS, SCORE_DIGITS = 2, 4
PERCENT_DIGITS = 4
"""A hundredth of a pixel in a picture of ten thousand."""
