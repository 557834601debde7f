"""Has a server forget what a run has sent: some texts under whatever label, or all of it.

What is needed to ask stands in the run folder (`STARTED`), so that the data may be gone already.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from airtune.errors import ConfigError, ModelError, RunError
from airtune.methods.pae_mobillm.building import device_name, open_uplink, over_the_air
from airtune.methods.pae_mobillm.config import PAEConfig
from airtune.methods.pae_mobillm.device.asking import Asking
from airtune.methods.pae_mobillm.device.upload import forget_repetitions, sample_ids
from airtune.methods.pae_mobillm.started import STARTED, Started
from airtune.models import sentences
from airtune.records import Progress, RunFolder
from airtune.tasks import Columns, columns_of, read_texts
from airtune.transport import Transport
from airtune.workloads.opening import open_base


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What the server held.

    Args:
        held: Samples; none of them now.
        absent: Texts of which it held none.
    """

    held: int
    absent: tuple[str, ...] = ()


def forget(
    config: PAEConfig, folder: RunFolder, server: Transport, texts: Sequence[str] | Path | None, progress: Progress
) -> Forgotten:
    """Have samples forgotten, and record in the run folder how many the server held.

    Labels need not be known: each text is asked about under every one. Whatever of it comes later is refused, too.

    Args:
        texts: As they stand in the data, or a file of them, see `read_texts`. None: all that the server holds.
        server: As for `run`.

    Raises:
        DataError: the file cannot be read.
        ConfigError: no texts, or texts of running text, whose samples are windows over it.
        ModelError: the server holds samples of another run, or the model's tokenizer is another.
        RunError: the run has sent nothing. TransportError: the server holds nothing, or was not reached.
    """
    if isinstance(texts, Path):
        own = Columns(config.task.text_column, config.task.label_column)
        texts = read_texts(texts, columns_of(config.task.name, own))
    if texts is not None and not texts:
        raise ConfigError("no texts were given; name what is to be forgotten")
    started = Started.read(folder)
    if started is None:
        raise RunError(f"{folder.path} has no {STARTED}: the run has not reached its server, nothing was sent")
    ledger = folder.read_ledger()
    air = over_the_air(config, open_uplink(config), server, ledger)
    name, session = device_name(config), uuid.uuid4().hex
    asking = Asking(air, started.identity.key, name=name, session=session, sleep=time.sleep)
    if texts is None:
        found = Forgotten(asking.forget_all())
    else:
        found = _texts_forgotten(config, started, asking, [*dict.fromkeys(text.strip() for text in texts)], progress)
    folder.write_ledger(ledger)
    folder.metric("forgotten", held=found.held, absent=len(found.absent))
    return found


def _texts_forgotten(
    config: PAEConfig, started: Started, asking: Asking, texts: Sequence[str], progress: Progress
) -> Forgotten:
    if not started.labels:
        raise ConfigError("running text is sent in windows, which texts do not name; have all of it forgotten (--all)")
    with progress.stage("Loading model"):
        base = open_base(config, started.labels)
    if base.tokenizer_sha256 != started.identity.tokenizer:
        raise ModelError(
            f"the tokenizer of {base.name} is {base.tokenizer_sha256[:12]}, the run's was "
            f"{started.identity.tokenizer[:12]}; give the model back that it ran with"
        )
    each = [text for text in texts for _ in range(started.labels)]
    classes = [*range(started.labels)] * len(texts)
    items = sentences(each, classes, base.tokenizer, max_length=config.model.max_length)
    with progress.stage("The server forgets"):
        held = asking.standing(sample_ids(asking.name, items))[0].reshape(len(texts), started.labels).any(1)
        gone, _ = forget_repetitions(asking, asking.name, items)
    return Forgotten(gone, tuple(text for text, was in zip(texts, held, strict=True) if not was))
