"""Format 2: adapters as whole numbers, entropy-coded, in chunks of decreasing value.

quantiser.py   START: an adapter -> codes at a price of a bit, under the loss's curvature
directions.py  the directions of a site -> codes
curvature.py   how errors of updates count
rounding.py    metrics; rounding that feeds errors back
values.py      codes, scales and tables of an adapter; back to factors
held.py        what a receiver holds in whole numbers: its name, and changes of it
refining.py    a new adapter as changes of the held one
order.py       which direction is sent when
bodies.py      chunk bodies <-> codes
bounds.py      what bodies may hold at most
streams.py     runs and vectors <-> streams of words
framing.py     header, chunk table, hashes
"""
