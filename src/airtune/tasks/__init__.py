"""Data and how hard it is: tasks loaded by name, split into disjoint parts, and the complexity of a batch.

Reading map: `load` (START: names -> tasks), `examples` (what a task is), `splits` (disjoint parts, stratified draws),
`files` (rows out of files), `tables` (sst2, agnews, classify), `text`, `hub`, `pydocs` with `areas` and `prose` (the
embedded task), `complexity` (lexical entropy H, out-of-vocabulary rate rho). The room knows no tokenizer and no model.
"""

from __future__ import annotations

from airtune.tasks.complexity import Complexity, Lexicon, complexity, words_of
from airtune.tasks.examples import Classification, Columns, Example, Sizes, Task, Text
from airtune.tasks.files import read_texts
from airtune.tasks.load import TASKS, columns_of, load_task

__all__ = [
    "TASKS",
    "Classification",
    "Columns",
    "Complexity",
    "Example",
    "Lexicon",
    "Sizes",
    "Task",
    "Text",
    "columns_of",
    "complexity",
    "load_task",
    "read_texts",
    "words_of",
]
