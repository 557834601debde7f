"""Format 1: numbers in blocks with a scale, or as floats; its sizes follow from shapes, ranks and bits alone.

encoding.py     START: encode, decode_blockwise
layout.py       exact sizes without encoding, and how levels fall into chunks
container.py    header, chunk table, hashes
packing.py      a site's directions and dense tensors as rows of bytes
quantise.py     float32, float16, 8 and 4 bits in blocks
allocation.py   Allocation: ranks and bits per site
"""
