"""What else a device could do, and what that would send: formulae over real token counts, nothing is run.

| way                | uplink                                                   | downlink                       |
|--------------------|----------------------------------------------------------|--------------------------------|
| PAE MobiLLM        | pivots and differences, once                             | the side network, once         |
| MobiLLM            | every token's hidden states and the label, every epoch   | the side network, once         |
| split learning     | every token's hidden state at the cut, label, every epoch | its gradient, every epoch     |
| sending the data   | every token as 4 bytes, and the label, once              | the trained network            |

Sources: MobiLLM, arXiv:2502.20421; split learning, Vepakomma et al., arXiv:1812.00564. Labels are 4 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.wire import body_bytes

LABEL_BYTES = TOKEN_BYTES = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of one way, over all epochs."""

    way: str
    up: int
    down: int


def costs(
    identity: Identity,
    samples: int,
    rows: int,
    tokens: int,
    epochs: int,
    side_bytes: int,
    *,
    blocks: int,
    text: bool,
    bits: int = 16,
) -> tuple[Cost, ...]:
    """All ways for the same samples and epochs, split learning's activations at 16 bits.

    Args:
        rows: Pivots.
        tokens: Of all samples together, padding not counted.
        side_bytes: Of the side network as it is sent.
        blocks: L, of which MobiLLM sends all.
        bits: Of a number that MobiLLM sends; with 8, each token has a scale of 4 bytes in every layer, as on our wire.
    """
    each = identity.width * bits // 8 + (4 if bits == 8 else 0)
    width, label = identity.width, LABEL_BYTES * (rows if text else samples)
    return (
        Cost("PAE MobiLLM", body_bytes(identity, samples, rows, several=text), side_bytes),
        Cost("MobiLLM (all tokens, every epoch)", epochs * (tokens * blocks * each + label), side_bytes),
        Cost("split learning (one cut)", epochs * (tokens * width * 2 + label), epochs * tokens * width * 2),
        Cost("sending the data itself", tokens * TOKEN_BYTES + label, side_bytes),
    )
