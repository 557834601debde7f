"""Has a server forget what a run has sent: some texts under whatever label, or all that the run trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from airtune.errors import ConfigError
from airtune.methods.pae_mobillm.building import new_device, open_uplink, samples_of
from airtune.methods.pae_mobillm.config import PAEConfig
from airtune.models import Items, sentences
from airtune.records import Progress, RunFolder
from airtune.tasks import Classification, Columns, read_texts
from airtune.transport import Transport
from airtune.workloads.opening import open_reader
from airtune.workloads.parts import Reader


def forget(
    config: PAEConfig, folder: RunFolder, server: Transport, texts: Sequence[str] | Path | None, progress: Progress
) -> int:
    """Have samples forgotten, and record in the run folder how many the server held.

    Labels need not be known: each text is asked about under every one. Whatever of it comes later is refused, too.
    Where the settings choose layers or clip norms by the samples, the data must still be those of the run.

    Args:
        texts: As they stand in the data, or a file of them, see `read_texts`. None: every sample that the run trained
            on.
        server: As for `run`.

    Returns:
        How many samples the server held; none of them now.

    Raises:
        DataError: the file cannot be read.
        ConfigError: texts of running text, whose samples are windows over it.
        ModelError: the server holds samples of another identity.
    """
    if isinstance(texts, Path):
        texts = read_texts(texts, Columns(text=config.task.text_column))
    ledger = folder.read_ledger()
    with progress.stage("Loading model and task"):
        reader = open_reader(config)
        train = samples_of(config, reader)
        built = new_device(config, reader.base, train, open_uplink(config), server, ledger, progress)
    built.device.open(asdict(config.side), config.seed)
    with progress.stage("The server forgets"):
        asked = train if texts is None else _samples(reader, texts)
        held = built.device.forget(asked)
    folder.write_ledger(ledger)
    folder.metric("forgotten", texts=len(train) if texts is None else len(texts), held=held)
    return held


def _samples(reader: Reader, texts: Sequence[str]) -> Items:
    """Each text under every label."""
    task = reader.task
    if not isinstance(task, Classification):
        raise ConfigError("running text is sent in windows, which texts do not name; have all of it forgotten (--all)")
    labels = range(len(task.labels))
    each = [(text.strip(), label) for text in texts for label in labels]
    named, classes = [text for text, _ in each], [label for _, label in each]
    return sentences(named, classes, reader.base.tokenizer, max_length=reader.max_length)
