"""The air: what a wireless block carries, and how long a message needs (Eqs. 4-7).

Knows no models, payloads or messages. Its only packages are numpy and scipy, and scipy is loaded by the calls that need
it. Reading map, from the outside in:

    channel.py      START: Link, ChannelState
    survey.py       describe: what links carry, as rows of a table
    fading.py       Fading and its kinds: Still, Rayleigh, Rician, Nakagami
    trace.py        Trace: fading replayed from a measurement in a CSV
    choice.py       make_fading: a fading by name, for settings
    capacity.py     Shannon's rate, and its mean over fading (Eq. 5)
    deadline.py     airtime, and the bits that fit a deadline (Eqs. 6-7)
    waveform.py     y = h c + n symbol by symbol (Eq. 4)
    units.py        decibels, thermal noise
    ranges.py       which values are physical
"""

from __future__ import annotations

from airtune.links.channel import ChannelState, Link
from airtune.links.choice import FADINGS, make_fading
from airtune.links.deadline import meets_deadline
from airtune.links.fading import Fading, Nakagami, Rayleigh, Rician, Still
from airtune.links.survey import PAPER_LINKS, LinkRow, describe
from airtune.links.trace import Trace
from airtune.links.units import db_to_linear, linear_to_db, thermal_noise_w

__all__ = [
    "FADINGS",
    "PAPER_LINKS",
    "ChannelState",
    "Fading",
    "Link",
    "LinkRow",
    "Nakagami",
    "Rayleigh",
    "Rician",
    "Still",
    "Trace",
    "db_to_linear",
    "describe",
    "linear_to_db",
    "make_fading",
    "meets_deadline",
    "thermal_noise_w",
]
