"""What a run leaves on disk, and the numbers it can be repeated from.

Where to read what:

| file           | idea                                                                                      |
|----------------|-------------------------------------------------------------------------------------------|
| `run_folder`   | one folder per run: config, metrics, ledger, summary, and who may write. Start here       |
| `measurements` | costly results kept by the content of their question, so that a resumed run skips them    |
| `cells`        | results of a study, named by the hash of all they depend on                               |
| `atomic`       | files that are whole or absent, lines that are whole or ignored                           |
| `lock`         | one writer at a time                                                                      |
| `plain`        | values as JSON and TOML can hold them                                                     |
| `seeds`        | named, independent streams of randomness from one seed                                    |
| `progress`     | how long work says how far it is                                                          |
| `versions`     | which software was in force                                                               |

The room knows no torch, no methods, and no meaning of a metric's name.
"""

from airtune.records.atomic import append_line, read_lines, write_bytes, write_text
from airtune.records.measurements import Measurements
from airtune.records.progress import Progress, Silent, Stage
from airtune.records.run_folder import RunFolder
from airtune.records.seeds import generator, seed_for
from airtune.records.versions import versions_in_force

__all__ = [
    "Measurements",
    "Progress",
    "RunFolder",
    "Silent",
    "Stage",
    "append_line",
    "generator",
    "read_lines",
    "seed_for",
    "versions_in_force",
    "write_bytes",
    "write_text",
]
