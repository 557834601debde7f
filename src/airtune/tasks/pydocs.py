"""The task that is always there: tell the area of a sentence from the running Python's own documentation.

Sentences come from the docstrings in the standard library's source, read by `ast` and never run, and from the topics
of the language reference (`pydoc_data.topics`). The unit of the split is the module, that is one source file; each
topic of the reference counts as one. No module stands in two parts, nor does a sentence. The parts are fixed for a
version of Python: no locale, hash seed, order of files or seed enters; the seed draws the calibration rows from their
modules and shuffles the training rows. This module knows no tokenizer and no model.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from airtune.errors import DataError
from airtune.tasks.areas import AREAS, TOPICS, area_by_name
from airtune.tasks.examples import PARTS, Classification, Example, Part, Sizes
from airtune.tasks.prose import sentences
from airtune.tasks.splits import draw, normalised, shuffled

MIN_SENTENCES = 6_000
SHARES: Mapping[Part, float] = {"train": 0.65, "calibration": 0.1, "dev": 0.1, "test": 0.15}
_LEFT_OUT = {"test", "tests", "idle_test", "__pycache__", "site-packages"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_NESTING = (ast.stmt, ast.ExceptHandler, ast.match_case)


@dataclass(frozen=True, slots=True)
class Module:
    """The sentences of one module (a source file, or a topic of the language reference), and its area."""

    name: str
    area: str
    sentences: tuple[str, ...]


def load_pydocs(sizes: Sizes, rng: np.random.Generator, stdlib: Path | None = None) -> Classification:
    """Load the sentences of the standard library's documentation, labelled by area, split by module.

    Args:
        sizes: Caps on the parts; a calibration part of at most 512 unless it says otherwise.
        rng: Draws the calibration part and shuffles the training rows.
        stdlib: Where the library's sources are; by default those of the running Python.

    Raises `DataError` where the sources are missing or give fewer than 6,000 sentences.
    """
    parts = split_by_module(read_modules(stdlib or Path(sysconfig.get_path("stdlib"))))
    labels = tuple(AREAS)
    examples = {
        part: tuple(Example(text, labels.index(unit.area)) for unit in parts[part] for text in unit.sentences)
        for part in PARTS
    }
    if sizes.calibration is not None and sizes.calibration > len(examples["calibration"]):
        found = f"{sizes.calibration} calibration rows, but has {len(examples['calibration'])} to draw from"
        raise DataError(f"task pydocs was asked for {found}; ask for at most that many")
    caps = {"train": sizes.train, "calibration": sizes.calibration or 512, "dev": sizes.dev, "test": sizes.test}
    train, calibration, dev, test = (draw(examples[part], caps[part], rng)[0] for part in PARTS)
    return Classification("pydocs", labels, shuffled(train, rng), calibration, dev, test)


@cache
def read_modules(stdlib: Path) -> tuple[Module, ...]:
    """Read every module of `AREAS`, sorted by name, without the sentences that occur in two areas.

    A sentence that occurs in several modules of one area is kept in the first. Raises `DataError` as `load_pydocs`.
    """
    areas = area_by_name()
    documents = _joined([*_source_documents(stdlib), *_topic_documents(stdlib)])
    found = {name: list(sentences(document)) for name, document in documents.items()}
    areas_of: dict[str, set[str]] = defaultdict(set)
    for name, texts in found.items():
        for text in texts:
            areas_of[_compared(text)].add(areas[_top(name)])
    units: list[Module] = []
    for name, texts in found.items():
        area = areas[_top(name)]
        if new := [text for text in texts if areas_of.pop(_compared(text), set()) == {area}]:
            units.append(Module(name, area, tuple(new)))
    if (total := sum(len(unit.sentences) for unit in units)) < MIN_SENTENCES:
        advice = "install Python with its library sources (.py files), or choose the task classify or text with data"
        raise DataError(f"{stdlib} gives {total} documentation sentences, expected {MIN_SENTENCES}; {advice}")
    return tuple(units)


def split_by_module(units: Sequence[Module]) -> dict[Part, tuple[Module, ...]]:
    """Give each module to one part: area by area, largest first, to the part furthest below its share."""
    parts: dict[Part, list[Module]] = {part: [] for part in PARTS}
    for area in AREAS:
        members = [unit for unit in units if unit.area == area]
        total = sum(len(unit.sentences) for unit in members)
        wanted = {part: SHARES[part] * total for part in PARTS}
        for unit in sorted(members, key=lambda unit: (-len(unit.sentences), unit.name)):
            part = max(PARTS, key=wanted.__getitem__)
            wanted[part] -= len(unit.sentences)
            parts[part].append(unit)
    return {part: tuple(parts[part]) for part in PARTS}


def _source_documents(stdlib: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, docstring) of every source file; one that does not parse is passed over."""
    for name in area_by_name():
        folder = stdlib / name
        for path in folder.rglob("*.py") if folder.is_dir() else [stdlib / f"{name}.py"]:
            inside = path.relative_to(stdlib)
            if path.is_file() and not _LEFT_OUT.intersection(inside.parts):
                module = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
                yield from _docstrings(module, path)


def _docstrings(module: str, path: Path) -> Iterator[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in others' source
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            return
    todo: list[ast.AST] = [tree]
    while todo:  # depth first, in the order of the source
        node = todo.pop()
        if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node)):
            yield module, docstring
        todo.extend(child for child in reversed([*ast.iter_child_nodes(node)]) if isinstance(child, _NESTING))


def _topic_documents(stdlib: Path) -> Iterator[tuple[str, str]]:
    """Yield (topic, text) of the language reference, read out of the one dictionary in its module."""
    path = stdlib / "pydoc_data" / "topics.py"
    if not path.is_file():
        return
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            for name, document in ast.literal_eval(node.value).items():
                yield f"{TOPICS}:{name}", document


def _joined(documents: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join the documents of each module, a blank line between; modules come sorted by name."""
    texts: dict[str, list[str]] = defaultdict(list)
    for name, document in documents:
        texts[name].append(document)
    return {name: "\n\n".join(texts[name]) for name in sorted(texts)}


def _top(name: str) -> str:
    """Return the top-level module or package of a module."""
    return name.partition(":")[0].partition(".")[0]


def _compared(sentence: str) -> str:
    return normalised(sentence).rstrip(".!?")
