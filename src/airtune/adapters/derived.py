"""Bases that a receiver derives from the base model's own weights, so that only a small core of an update is sent.

With U_k S_k V_k^T the truncated SVD of a site's weight, its update is U_k S_k R V_k^T with a core R of shape (k, k)
(LoRA-XS, Balazy et al. 2024, arXiv:2405.17604). In a payload a core is a site like any other, of shape (k, k) and with
a name that says what it is. Singular vectors have no signs of their own and may be turned among equal singular values,
so the name also holds whole numbers that only the same bases give. Knows weights and factors; not torch, bits or how a
core is trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import shake_256

import numpy as np
import numpy.typing as npt

from airtune.codec import Curvature, Factors
from airtune.errors import ConfigError, PayloadError

PROJECTIONS = 2
"""Check numbers of a site's bases."""
RESOLUTION = 2**16
"""Check numbers are projections in units of this fraction."""
LARGE = 0.5
"""A singular vector's sign is that of its first entry of at least this share of its largest one."""

_NAME = re.compile(r"(?P<path>[^ ]+) core=svd check=-?[0-9]{1,9}(?:,-?[0-9]{1,9})*")


@dataclass(frozen=True, slots=True, eq=False)
class Bases:
    """Of one site: an update is ``left @ core @ right``.

    Args:
        left: U_k S_k, shape (out, k), float32.
        right: V_k^T, shape (k, in), float32.
        checks: Projections of U_k and V_k, whole numbers.
    """

    left: npt.NDArray[np.float32]
    right: npt.NDArray[np.float32]
    checks: tuple[int, ...]

    @property
    def size(self) -> int:
        """k."""
        return len(self.right)

    def lift(self, core: Factors) -> Factors:
        """The update of the whole site from factors of its core, shapes (k, r), (r,), (r, k); as many directions."""
        return Factors(self.left @ core.p, core.lam, core.q @ self.right)

    def core(self, update: Factors) -> Factors:
        """Factors of the core of an update, the inverse of `lift`; what the bases do not reach is lost."""
        squares = (self.left.astype(np.float64) ** 2).sum(axis=0)[:, None]  # S_k^2: U_k has orthonormal columns
        p = self.left.T @ np.asarray(update.p, np.float64) / np.where(squares > 0, squares, 1.0)
        return Factors(p, update.lam, update.q @ self.right.T)


def derive(weight: npt.NDArray[np.floating], size: int) -> Bases:
    """Bases of a projection from its weight.

    Args:
        weight: W, shape (out, in).
        size: k; min(out, in) where that is smaller.

    Raises:
        ConfigError: k is below 1.
    """
    if size < 1:
        raise ConfigError(f"bases of {size} singular vectors are asked for; choose 1 at least")
    u, values, vt = np.linalg.svd(np.asarray(weight, np.float64), full_matrices=False)
    signs = np.array([_sign(row) for row in vt[:size]])
    u, vt = u[:, :size] * signs, vt[:size] * signs[:, None]
    return Bases((u * values[:size]).astype(np.float32), vt.astype(np.float32), _checks(u, vt))


def within(bases: Bases, bends: Curvature) -> Curvature:
    """How the loss bends for a change of the core R: that of ``left R right``."""
    return Curvature(_seen(bends.inputs, bases.right), _seen(bends.outputs, bases.left.T), bends.damping)


def core_name(path: str, bases: Bases) -> str:
    """What a payload calls the core of a site."""
    return f"{path} core=svd check={','.join(map(str, bases.checks))}"


def lift_cores(factors: Mapping[str, Factors], bases: Mapping[str, Bases]) -> dict[str, Factors]:
    """Updates of whole sites by path, from a payload's cores; sites that are no cores stay as they are.

    Args:
        factors: As decoded.
        bases: The receiver's own, by path, of the cores' size.

    Raises:
        PayloadError: a core of bases that the receiver does not have, or that differ from its own.
    """
    found: dict[str, Factors] = {}
    for name, site in factors.items():
        path = path_of(name)
        if path in found:
            raise PayloadError(f"{path} is there twice, as a core and as an update; send one of them")
        found[path] = site if path == name else _own(name, site, bases).lift(site)
    return found


def path_of(name: str) -> str:
    """The path of the site that a core is of; any other name is a path itself."""
    core = _NAME.fullmatch(name)
    return core["path"] if core else name


def _own(name: str, core: Factors, bases: Mapping[str, Bases]) -> Bases:
    path = path_of(name)
    size = bases[path].size if path in bases else 0
    if core.shape != (size, size):
        at_hand = f"the bases at hand are of size {size}" if size else "no bases are at hand"
        line = f"{path} comes as a core of shape {core.shape}, {at_hand}"
        raise PayloadError(f"{line}; derive those from its base model (unpack --model), or ask for whole updates")
    checks = [int(check) for check in name.rpartition("=")[2].split(",")]
    own = bases[path].checks
    if len(checks) != len(own) or any(abs(a - b) > 1 for a, b in zip(checks, own, strict=True)):
        line = f"the bases of {path} derived here have checks {list(own)}, the sender's {checks}"
        raise PayloadError(f"{line}: its core would be another update; ask for the adapter without derived bases")
    return bases[path]


def _seen(moments: npt.NDArray[np.floating] | None, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
    """B H B^T of rows B, shape (k, k), for a matrix H or its diagonal."""
    if moments is None:
        return None
    wide = rows.astype(np.float64)
    found: npt.NDArray[np.float64] = (wide * moments if moments.ndim == 1 else wide @ moments) @ wide.T
    return found


def _sign(row: npt.NDArray[np.float64]) -> float:
    large = np.abs(row) >= LARGE * np.abs(row).max()
    return 1.0 if row[np.argmax(large)] >= 0 else -1.0


def _checks(u: npt.NDArray[np.float64], vt: npt.NDArray[np.float64]) -> tuple[int, ...]:
    """a^T U b + b^T V^T c for vectors of signs a, b, c: a flip or turn of any singular vector changes them."""
    found = []
    for which in range(PROJECTIONS):
        a, b, c = (
            _signs(f"{side} {which}", n) for side, n in (("out", len(u)), ("core", len(vt)), ("in", vt.shape[1]))
        )
        found.append(round(float(RESOLUTION * (a @ u @ b + b @ vt @ c))))
    return tuple(found)


def _signs(text: str, count: int) -> npt.NDArray[np.float64]:
    """Bits of SHAKE-256 of a text, the highest of each byte first, as 1 and -1."""
    bits = np.unpackbits(np.frombuffer(shake_256(text.encode()).digest((count + 7) // 8), np.uint8))
    return 1.0 - 2.0 * bits[:count].astype(np.float64)
