"""One site through the quantiser, and what a receiver has of it by the formula of docs/payload.md."""

from __future__ import annotations

import numpy as np

from airtune.codec import Factors
from airtune.codec.coded.quantiser import Quantised, code_adapter


def quantised(site: Factors, slope: float = 1e-4, canonical: bool = False, **options) -> Quantised:
    return code_adapter({"a.site": site}, {}, slope, canonical=canonical, **options)


def received(found: Quantised) -> np.ndarray:
    site = found.coded.sites["a.site"]
    return (site.p * 2.0 ** (site.scales / 4)) @ site.q


def codes_of(found: Quantised) -> list[list]:
    site = found.coded.sites["a.site"]
    return [site.p.tolist(), site.q.tolist(), site.scales.tolist(), site.p_tables.tolist(), site.q_tables.tolist()]
