"""A PPM picture as PNG: python3 ppm_to_png.py IN.ppm OUT.png"""

import sys

from generate import png

with open(sys.argv[1], "rb") as file:
    magic, width, height, _, _ = (data := file.read()).split(maxsplit=4)
assert magic == b"P6", "not a PPM"
size = int(width) * int(height) * 3
with open(sys.argv[2], "wb") as file:
    file.write(png(int(width), int(height), data[-size:]))
