"""The adapter of a whole model: attach it to its sites, choose ranks, read and write its factors.

Knows sites, layers and ranks; not how they are trained, decided or sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from airtune.adapters.ranks import RankVector, check_sites, rank_caps
from airtune.adapters.svd_linear import SvdLinear
from airtune.codec import Factors
from airtune.errors import PayloadError
from airtune.models import BaseModel, Site


class Adapter:
    """Low-rank updates P diag(lam) Q on every site of a base model, plus its trained head.

    Attaching replaces each projection in place by an `SvdLinear` around it; `detach` puts the projections back.

    Args:
        base: The model to adapt. Its weights stay frozen.
        max_rank: r_max; a site's cap is the smaller of it and min(fan_in, fan_out). Or every site's cap.
        scale: s, the constant in front of every update (LoRA's alpha / r, which here does not depend on the rank).
        generator: Draws Q's start.
    """

    def __init__(
        self, base: BaseModel, max_rank: int | RankVector, *, scale: float = 1.0, generator: torch.Generator
    ) -> None:
        self.base = base
        self.sites: tuple[Site, ...] = base.sites
        self.caps = rank_caps(self.sites, max_rank) if isinstance(max_rank, int) else max_rank
        check_sites(self.caps, self.sites)
        self.layers: tuple[SvdLinear, ...] = tuple(
            SvdLinear(
                base.model.get_submodule(site.path), site.fan_in, site.fan_out, cap, scale=scale, generator=generator
            )
            for site, cap in zip(self.sites, self.caps.ranks, strict=True)
        )
        for site, layer in zip(self.sites, self.layers, strict=True):
            base.model.set_submodule(site.path, layer)
        for parameter in self.parameters().values():
            parameter.requires_grad_(False)

    def detach(self) -> None:
        """Put the bare projections back; the base model is as it was."""
        for site, layer in zip(self.sites, self.layers, strict=True):
            self.base.model.set_submodule(site.path, layer.base)

    @property
    def ranks(self) -> RankVector:
        return RankVector(tuple(layer.rank for layer in self.layers))

    def set_ranks(self, ranks: RankVector) -> None:
        """Use the first r directions of every site from now on; takes effect at once, up or down.

        Raises:
            ConfigError: another number of sites, or a rank above a site's cap.
        """
        check_sites(ranks, self.sites)
        for layer, rank in zip(self.layers, ranks.ranks, strict=True):
            layer.rank = min(rank, layer.cap)

    def set_item_ranks(self, vectors: Sequence[RankVector]) -> None:
        """Give every item of the coming batches a rank vector of its own, until `set_ranks` is called.

        One pass then trains as many prefixes as the batch has items; it computes each site's largest rank.

        Raises:
            ConfigError: a vector that is not for these sites.
        """
        for ranks in vectors:
            check_sites(ranks, self.sites)
        table = torch.tensor([ranks.ranks for ranks in vectors], device=self.base.device)
        for layer, ranks in zip(self.layers, table.T, strict=True):
            layer.set_item_ranks(ranks.clamp(max=layer.cap))

    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is trained, by name: P, lam, Q of every site, then the head."""
        factors = {
            f"{site.path}.{name}": getattr(layer, name)
            for site, layer in zip(self.sites, self.layers, strict=True)
            for name in ("p", "lam", "q")
        }
        return factors | self.head()

    def head(self) -> dict[str, nn.Parameter]:
        """The trained head's parameters by name; empty for next-token prediction."""
        return {name: self.base.model.get_parameter(name) for name in self.base.head}

    def orthogonality(self) -> torch.Tensor:
        """Eq. 3, averaged over the sites (the paper writes neither sum nor mean)."""
        return torch.stack([layer.orthogonality() for layer in self.layers]).mean()

    def order_by_importance(self) -> None:
        """Sort each site's directions by the norm of their update, largest first."""
        for layer in self.layers:
            layer.reorder(torch.argsort(layer.importance(), descending=True, stable=True))

    def factors(self) -> dict[str, Factors]:
        """P, lam, Q of every site, all directions, by path: unit rows, the scale and norms in lam.

        Prefix k of a site is exactly what the layer computes at rank k.
        """
        found = {}
        for site, layer in zip(self.sites, self.layers, strict=True):
            p, lam, q = (tensor.detach().cpu().double().numpy() for tensor in (layer.p, layer.lam, layer.q))
            p_norm, q_norm = np.linalg.norm(p, axis=1), np.linalg.norm(q, axis=1)
            found[site.path] = Factors(
                p=(p / np.where(p_norm > 0, p_norm, 1)[:, None]).T.astype(np.float32),
                lam=(layer.scale * lam * p_norm * q_norm).astype(np.float32),
                q=(q / np.where(q_norm > 0, q_norm, 1)[:, None]).astype(np.float32),
            )
        return found

    def dense(self) -> dict[str, np.ndarray]:
        """A copy of the trained head's values by name, as they go into a payload."""
        return {name: value.detach().cpu().float().numpy().copy() for name, value in self.head().items()}

    @torch.no_grad()
    def load(self, factors: Mapping[str, Factors], dense: Mapping[str, np.ndarray]) -> None:
        """Take over decoded factors and head: each site's rank becomes the number of directions given.

        Everything is checked before anything is changed.

        Raises:
            PayloadError: sites, shapes or head do not match this model.
        """
        check_update(self.base, factors, dense)
        for site, layer in zip(self.sites, self.layers, strict=True):
            if len(factors[site.path].lam) > layer.cap:
                found = f"{site.path} has rank {len(factors[site.path].lam)}"
                raise PayloadError(f"{found}, this adapter has room for {layer.cap}; attach one with a larger r_max")
        for site, layer in zip(self.sites, self.layers, strict=True):
            given = factors[site.path]
            rank = len(given.lam)
            layer.p[:rank] = torch.from_numpy(np.ascontiguousarray(given.p.T))
            layer.lam[:rank] = torch.from_numpy(np.asarray(given.lam, dtype=np.float32) / layer.scale)
            layer.q[:rank] = torch.from_numpy(np.ascontiguousarray(given.q))
            layer.rank = rank
        for name, parameter in self.head().items():
            if name in dense:
                parameter.copy_(torch.from_numpy(np.array(dense[name], dtype=np.float32)))


def check_update(base: BaseModel, factors: Mapping[str, Factors], dense: Mapping[str, np.ndarray]) -> None:
    """Refuse an update that is not for this model. A head may be missing, not another one.

    Raises:
        PayloadError: sites, shapes or head do not match.
    """
    expected = {site.path for site in base.sites}
    if set(factors) != expected:
        odd = sorted(set(factors) ^ expected)[0]
        raise PayloadError(
            f"the payload's sites differ from the model's at {odd}; send one made for this model's anatomy"
        )
    for site in base.sites:
        given, rank = factors[site.path], len(factors[site.path].lam)
        if given.p.shape != (site.fan_out, rank) or given.q.shape != (rank, site.fan_in) or rank > site.cap:
            raise PayloadError(
                f"{site.path} has P {given.p.shape}, Q {given.q.shape}; expected ({site.fan_out}, r), "
                f"(r, {site.fan_in}) with r <= {site.cap}; send one made for this model"
            )
    head = {name: tuple(base.model.get_parameter(name).shape) for name in base.head}
    if dense and {name: value.shape for name, value in dense.items()} != head:
        raise PayloadError(
            f"the payload's head holds {sorted(dense)}; the model's is {sorted(head)} with its own shapes; "
            "send one made for this task"
        )
