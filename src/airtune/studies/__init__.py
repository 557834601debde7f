"""Studies: the paper's tables and figures, repeated over seeds, with intervals, beside what the paper says.

| file          | idea                                                                                  |
|---------------|---------------------------------------------------------------------------------------|
| `run`         | one study from its name to its page. Start here                                       |
| `declaration` | what a study varies, measures and stands beside: one small TOML file each             |
| `plan`        | workloads x variants x seeds -> a graph of cells, equal ones shared                   |
| `engine`      | computes the graph: in parallel, each cell once, resumable, failures contained        |
| `worker`      | one process that computes cells                                                       |
| `gather`      | values of the cells in long form, and by seed                                         |
| `intervals`   | intervals over seeds and items, paired differences                                    |
| `sheets`      | tables as texts; `markdown`, `page` and `figures` show them                           |
| `verdicts`    | what the numbers say to each claim                                                    |

A method brings its kinds of cells (see `airtune.records.cells`) and a folder of declarations here, named after it. To
declare a study, copy a file of `airllm/`; a kind of cell that does not exist yet is a function in the method's room.
"""

from airtune.studies.declaration import studies_of
from airtune.studies.run import Finished, run_study

__all__ = ["Finished", "run_study", "studies_of"]
