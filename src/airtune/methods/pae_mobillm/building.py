"""Turns settings into a device and its uplink. Configs stop here: parts take plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from airtune.errors import ConfigError
from airtune.ledger import Ledger
from airtune.links import Link
from airtune.methods.pae_mobillm.config import PAEConfig
from airtune.methods.pae_mobillm.device.choice import choose_layers
from airtune.methods.pae_mobillm.device.device import Device
from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.layers import LayerChoice, uplink_budget
from airtune.methods.pae_mobillm.device.pivots import blocks_of, identity_of, outputs_of, read_pivots
from airtune.methods.pae_mobillm.device.upload import asking_bits
from airtune.methods.pae_mobillm.identity import Identity, salted
from airtune.methods.pae_mobillm.privacy.defences import Chain, Defence, GaussianNoise, defence
from airtune.methods.pae_mobillm.privacy.gaussian import median_norms
from airtune.methods.pae_mobillm.privacy.inversion import Dictionary, Read, frames
from airtune.methods.pae_mobillm.server.role import ServerRole
from airtune.models import BaseModel, Items, weights_hash
from airtune.records import Progress, generator, seed_for
from airtune.transport import OverTheAir, Transport
from airtune.workloads.opening import links_at
from airtune.workloads.parts import Reader

CENTRE_TOKENS = 256
"""Tokens alone, whose mean hidden state noise clips around; public, for the backbone is."""


def check_machine(config: PAEConfig) -> None:
    """Nothing that this method cannot run without."""


def server_role(config: PAEConfig, folder: Path) -> ServerRole:
    """The server's side; its store is in `folder` where the settings name none."""
    settings = config.server
    return ServerRole(
        Path(settings.store).expanduser() if settings.store else folder / "server",
        memory_mb=settings.memory_mb,
        disk_mb=settings.disk_mb,
        keep_s=settings.keep_s,
    )


def open_uplink(config: PAEConfig) -> Link:
    """The one link that a run has. Raises `ConfigError` where its bandwidth is left open."""
    if config.link.bandwidth_hz <= 0:
        raise ConfigError("link.bandwidth_hz is 0, which airllm finds out; give the uplink's bandwidth in Hz")
    return links_at(config.link, config.link.bandwidth_hz)[0]


def samples_of(config: PAEConfig, reader: Reader) -> Items:
    """What the device trains on: at most so many items of train, drawn by the seed."""
    return reader.drawn("train", config.device.train_items, config.seed)


@dataclass(frozen=True)
class Built:
    """A device, how it sends, and what stands between."""

    device: Device
    identity: Identity
    secrecy: Defence
    choice: LayerChoice
    air: OverTheAir


def new_device(
    config: PAEConfig,
    base: BaseModel,
    items: Items,
    link: Link,
    server: Transport,
    ledger: Ledger,
    progress: Progress,
) -> Built:
    """Choose layers and bits for these items, draw the defences' secrets, and stand at the uplink's end."""
    settings, privacy = config.device, config.privacy
    if base.kind == "text" and settings.space != "logit":
        raise ConfigError(f"device.space is {settings.space}, in which running text has no perplexity; set it to logit")
    rng = generator(config.seed, "layers")
    choice = choose_layers(
        base,
        items,
        settings.layers,
        layer_count=settings.layer_count,
        bits=settings.bits,
        budget_bits=uplink_budget(link, config.link.deadline_s, config.link.late_share, link.mean_state)
        - asking_bits(len(items), len(blocks_of(base)), asdict(config.side), config.seed),
        value_items=settings.value_items,
        batch_size=settings.batch_size,
        outputs=privacy.rotate_to or outputs_of(base),
        space=settings.space,
        scale=settings.target_scale,
        rng=rng,
    )
    secrecy = _defence(config, base, items, choice.layers)
    length = config.model.window if base.kind == "text" else config.model.max_length
    outputs = secrecy.outputs(outputs_of(base))
    identity = identity_of(
        base,
        choice.layers,
        choice.bits,
        length=length,
        space=settings.space,
        outputs=outputs,
        shaping=_shaping(config, secrecy),
    )
    air = over_the_air(config, link, server, ledger)
    device = Device(
        base,
        identity,
        air,
        name=device_name(config),
        batch_size=settings.batch_size,
        scale=settings.target_scale,
        secrecy=secrecy,
        ledger=ledger,
        progress=progress,
    )
    return Built(device, identity, secrecy, choice, air)


def device_name(config: PAEConfig) -> str:
    """What ids of samples are made of, beside the samples."""
    return f"{config.device.secret or config.seed}"


def over_the_air(config: PAEConfig, link: Link, server: Transport, ledger: Ledger) -> OverTheAir:
    """The server, at the uplink's other end."""
    blocks = generator(config.seed, "uplink")
    return OverTheAir(server, link, ledger, "device", lambda: link.observe(blocks)[0])


def _shaping(config: PAEConfig, secrecy: Defence) -> tuple[tuple[str, str], ...]:
    """What samples are shaped by beside what an identity tells: rows shaped in two ways are no one training set."""
    device, privacy, values = config.device, config.privacy, dict[str, float]()
    if device.space == "logit":
        values["target_scale"] = device.target_scale
    values |= {"rotate_to": privacy.rotate_to, "epsilon": privacy.epsilon}
    for part in secrecy.parts if isinstance(secrecy, Chain) else (secrecy,):
        if isinstance(part, GaussianNoise):
            values["delta"] = privacy.delta
            values["clip_activations"], values["clip_differences"] = part.clips
    return salted(device.secret, config.seed, values)


def reads(base: BaseModel, layers: Sequence[int]) -> Read:
    """The public backbone as an attacker has it: token ids of texts to hidden states at the pivot of each."""

    def read(texts: Sequence[np.ndarray]) -> np.ndarray:
        items = Items(tuple(texts), np.zeros(len(texts), np.int64), int(base.tokenizer.pad_token_id))
        return read_pivots(base, items, np.arange(len(items)), layers).activations

    return read


def _defence(config: PAEConfig, base: BaseModel, items: Items, layers: Sequence[int]) -> Defence:
    privacy, settings = config.privacy, config.device
    if not privacy.epsilon:
        return defence_of(config, outputs_of(base), layers)
    if base.kind == "text":
        raise ConfigError("privacy.epsilon protects sentences; running text has no such bound here; leave it out")
    some = None
    if not (privacy.clip_activations and privacy.clip_differences):
        items = items.chosen(np.arange(min(len(items), settings.value_items)))
        read = [read_pivots(base, items, rows, layers) for rows in items.in_order(settings.batch_size)]
        plain = [
            prediction_differences(one.logits, one.targets, space=settings.space, scale=settings.target_scale)
            for one in read
        ]
        some = np.concatenate([one.activations for one in read]), np.concatenate(plain)
    return defence_of(config, outputs_of(base), layers, some, centre_of(base, layers), weights_hash(base.model))


def centre_of(base: BaseModel, layers: Sequence[int]) -> np.ndarray:
    """Mean hidden states ``(K, d)`` of single words of the vocabulary: what noise is clipped around."""
    words = np.array(sorted(set(base.tokenizer.get_vocab().values()) - set(base.tokenizer.all_special_ids)))
    some = words[np.linspace(0, len(words) - 1, min(CENTRE_TOKENS, len(words))).astype(int)]
    return Dictionary.read(reads(base, layers), some, layers, frames(base.tokenizer)).means[0]


def defence_of(
    config: PAEConfig,
    outputs: int,
    layers: Sequence[int],
    some: tuple[np.ndarray, np.ndarray] | None = None,
    centre: np.ndarray | float = 0.0,
    backbone: str = "",
) -> Defence:
    """What the settings ask for; noise is of this way to send alone.

    Two uploads of a sample under one noise, at two epsilons say, would tell it exactly: their difference takes the
    noise off. So all that shapes what is sent beside the noise names its stream.

    Args:
        outputs: C.
        some: Hidden states ``(n, K, d)`` and differences ``(n, C)`` of some of the device's samples, one pivot each:
            noise is clipped to their median norms where the settings name none. Needed with noise alone.
        centre: See `centre_of`.
        backbone: Hash of its weights, with noise.
    """
    privacy, device = config.privacy, config.device
    clips = privacy.clip_activations, privacy.clip_differences
    if some is not None:
        found = [float(f"{norm:.3g}") for norm in median_norms(*some, centre=centre)]  # batches round differently
        clips = clips[0] or found[0], clips[1] or found[1]
    names: tuple[str | int, ...] = ("privacy", device.secret, *layers)
    secret = generator(config.seed, *names)
    if privacy.epsilon:  # one seed has 63 bits, less than the key of the noise
        shaping = device.space, device.target_scale, privacy.rotate_to, privacy.epsilon, privacy.delta, *clips
        names = *names, backbone, *map(repr, shaping)
        secret = np.random.default_rng([seed_for(config.seed, *names, part) for part in range(3)])
    return defence(
        outputs,
        rotate_to=privacy.rotate_to,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        clips=clips,
        centre=centre,
        secret=secret,
    )
