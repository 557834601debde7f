"""Benches: ratios measured side by side in one process, with what was asked of them beside.

How to add one: a module with a function ``bench(repeats: int, progress: Progress) -> Measured``, and a line in
`catalog.BENCHES`. `Measured` holds table rows (name -> number or text) and `Ratio`s; a ratio says what was measured,
what was asked, and whether more or less is better. `timing.interleaved` times rivals in turn, so that whatever else
the machine does meets all of them alike; `timing.median` is what goes into a row. `airtune bench NAME` prints the rows
and the ratios, writes both with a description of the machine as JSON, and ends with 1 where a ratio misses.

| file            | idea                                                              |
|-----------------|-------------------------------------------------------------------|
| `timing`        | rivals timed in turn                                              |
| `result`        | `Measured`, `Ratio`, and their JSON                               |
| `catalog`       | the table of benches, and running one                             |
| `decision`      | one decision of the policy against a loop around a library's DDIM |
| `env`           | environment steps on real losses: share outside the model         |
| `step`          | fine-tuning steps under changing ranks against peft's layers      |
| `codec`         | format 2 on OPT-1.3B's shapes: bits at equal error, time, memory  |
| `large_adapter` | an adapter of those shapes, with measured singular values         |
| `equal_error`   | 4 bits a number in three ways, and format 2 at their errors       |
| `bound`         | the fewest bits for an error                                      |
| `decoder`       | lanes by either coder, and the memory that decoding takes         |
"""

from airtune.benches.catalog import BENCHES, run_bench
from airtune.benches.result import Measured, Ratio

__all__ = ["BENCHES", "Measured", "Ratio", "run_bench"]
